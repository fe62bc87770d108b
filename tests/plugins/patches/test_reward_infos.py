"""What becomes of all that a reward returns: without these patches verl drops it, and takes what could not
be graded for wrong. A test here that fails after an upgrade means: delete the patch."""

from types import SimpleNamespace

import pytest

from plugins.patches.reward_infos import RewardInfos

PARTS = {
    "reward/score": 0.375, "reward/work": 0.5, "reward/masked": 1.0,
    "reward/band/good": 0.5, "reward/band/poor": 0.5,
}  # fmt: skip


def test_verl_drops_the_parts_of_a_reward(without, patched):
    assert without["reward_parts"]["parts"] == {}
    parts = patched["reward_parts"]["parts"]
    assert {k: v for k, v in parts.items() if not k.endswith("/std")} == PARTS
    assert without["reward_parts"]["advantages"] == patched["reward_parts"]["advantages"]


@pytest.mark.parametrize("question", ["reward_parts", "gdpo", "otb"])
def test_what_a_reward_returned_is_read_once_a_step(patched, question):
    """By the refusal of a step without grades, by GDPO, and by the metrics."""
    assert patched[question]["reads"] == 1


def test_verl_dumps_the_score_of_an_answer_alone(without, patched):
    """A dump of ours has the parts of each answer, in the row of that answer, and costs no read of its own."""
    verls, ours = without["dumped"]["rows"], patched["dumped"]
    assert ours["reads"] == 1
    assert [{k: row[k] for k in verls[0]} for row in ours["rows"]] == verls
    assert not {"work", "band", "masked"} & verls[0].keys()
    for row in ours["rows"]:
        known = ours["returned"][row["uid"]]
        assert {k: row[k] for k in known} == known


def test_it_is_forgotten_at_the_end_of_a_step():
    read = []

    def kv_batch_get(keys, partition_id, select_fields):
        read.append((keys, partition_id, select_fields))
        return {"extra_fields": [{"reward_extra_info": {"of": key}} for key in keys]}

    tq, infos = SimpleNamespace(kv_batch_get=kv_batch_get), RewardInfos()
    assert infos.get(tq, ["a_0_0"], "train") == [{"of": "a_0_0"}]
    batch = SimpleNamespace(
        keys=["a_1_0", "a_0_0", "pad_0_0"],
        tags=[{}, {}, {"is_padding": True}],
        partition_id="train",
    )
    for _ in range(2):
        assert infos.of_batch(tq, batch) == [{"of": "a_1_0"}, {"of": "a_0_0"}]
    assert [keys for keys, *_ in read] == [["a_0_0"], ["a_1_0", "pad_0_0"]]  # each once
    assert {tuple(fields) for *_, fields in read} == {("extra_fields",)}
    infos.forget()
    assert infos.get(tq, ["a_0_0"], "train") == [{"of": "a_0_0"}]  # the dump of the step
    assert len(read) == 2
    infos.get(tq, ["b_0_0", "a_0_0"], "train")
    assert read[2][0] == ["b_0_0", "a_0_0"]


def test_verl_does_not_say_that_nothing_could_be_graded(without, patched):
    assert without["nothing_graded"].startswith("ValueError: response_mask must contain")
    assert patched["nothing_graded"] == (
        "RuntimeError: none of the 4 answers of this step could be graded, so there is nothing to learn from:"
        " stopped=timeout"
    )


def test_verl_does_not_notice_that_the_reward_raises(without, patched):
    assert without["too_many_failed"][0] == "goes on"
    step, validation = patched["too_many_failed"]
    assert (
        step.startswith("the reward raised for 2 of 4 answers")
        and "failed_share=0.1 allows 0" in step
    )
    assert validation.startswith("the reward raised for 1 of 2 answers")


def test_verl_counts_what_could_not_be_graded_as_wrong(without, patched):
    """Two prompts with two answers each; one answer of the first is masked, and all of the second."""
    alone, ours = without["validation"], patched["validation"]
    assert alone["masked"]["acc"] == [0.25]
    assert ours["masked"] == {"acc": [1.0], "reward": [1.0]}
    assert ours["none"] == alone["none"]
    assert ours["counts"] == [2, 2]
