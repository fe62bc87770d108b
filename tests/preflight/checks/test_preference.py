"""Checks of the trainers on pairs and labelled steps: options, rows, lengths, where a run starts."""

import json

import pytest
from preflight_helpers import all_checks, caught, each

MISTAKES = {  # with algo=dpo, if they name no other
    "check_dpo": [
        (["dpo.loss=sigmiod"], "Did you mean sigmoid? There is: ipo, sigmoid"),
        (["dpo.reference=adaptor"], "Did you mean adapter?"),
        (["dpo.beta=0"], "not a number above 0"),
        (["dpo.beta=x"], "not a number above 0"),
        (["dpo.label_smoothing=0.5"], "from 0 to below 0.5"),
        (["dpo.loss=ipo", "dpo.label_smoothing=0.1"], "does nothing with dpo.loss=ipo"),
        (["dpo.reference=adapter"], "set lab.lora_rank=32"),
        (
            ["lab.lora_rank=8", "model.lora_adapter_path=/x"],
            "would leave out model.lora_adapter_path",
        ),
        (["engine.ulysses_sequence_parallel_size=2"], "doesn't split sequences"),
    ],
    "check_rm": [(["algo=rm", "rm.center=-1"], "is not a number, 0 or more")],
    "check_unread_data_keys": [(["data.truncation=left"], "left out")],
    "check_kind_of_rows": [
        (["dataset=jsonl", "lab.dataset.dir=/x"], "dataset=jsonl has no rows for algos.dpo"),
        (["algo=prm", "dataset=spider", "lab.dataset.dir=/x"], "lab.dataset.prm_train=FILE"),
        (["lab.dataset.pref_train=${.sft_train}"], "has no column chosen, prompt, rejected"),
        (
            [f"lab.dataset.pref_train={__file__}"],
            "is not a parquet file: `python -m data_prep convert",
        ),
    ],
    "check_items_fit": [(["lab.hw.tokens_per_gpu=200"], "one row may need (256 tokens")],
    "check_unknown_keys": [
        (["+dpo.bta=1"], "unknown key 'dpo.bta'"),
        (["+rm.center=1"], "unknown key 'rm"),
    ],
    "check_reward_of_sft": [(["reward=sql"], "scores nothing")],
}


test_each_mistake_is_found = each(MISTAKES, "algo=dpo")


@pytest.mark.parametrize(
    "overrides",
    [
        ["algo=dpo", "dpo.loss=ipo", "dpo.beta=1"],
        ["algo=dpo", "lab.lora_rank=8"],
        ["algo=dpo", "lab.lora_rank=8", "dpo.reference=engine", "dpo.label_smoothing=0.1"],
        ["algo=rm", "rm.center=0.01"],
        ["algo=prm", "lab.hw.tokens_per_gpu=200"],
    ],
)
def test_good_options_pass(said, overrides):
    assert said(*overrides) == []


def test_a_policy_does_not_start_from_a_reward_model(configure, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["Qwen2ForSequenceClassification"]})
    )
    check = all_checks()["check_start"]
    for algo in ("dpo", "sft", "grpo"):
        line = caught("check_start", configure(f"algo={algo}", f"lab.model.path={tmp_path}"))
        assert "is a reward model (Qwen2ForSequenceClassification)" in line
    assert check(configure("algo=prm", f"lab.model.path={tmp_path}")) is None
