"""Parts of rewards as metrics of a step."""

import math

import pytest

from plugins.rollout.reward_parts import LONGEST, MOST, Parts


def summarize(infos):
    return Parts().summarize(infos)


def test_numbers_have_mean_and_spread_and_texts_have_shares():
    found = summarize([
        {"work": 0.2, "band": "good", "masked": True},
        {"work": 0.8, "band": "poor", "masked": False},
        {"work": None, "band": "good"},
        {"work": math.nan},
    ])  # fmt: skip
    assert found == {
        "reward/work": pytest.approx(0.5), "reward/work/std": pytest.approx(0.3),
        "reward/masked": 0.5, "reward/masked/std": 0.5,
        "reward/band/good": pytest.approx(2 / 3), "reward/band/poor": pytest.approx(1 / 3),
    }  # fmt: skip


def test_a_collapse_has_no_spread():
    assert summarize([{"work": 0.7}] * 3)["reward/work/std"] == pytest.approx(0)


def test_nothing_gives_nothing():
    assert summarize([]) == summarize([{"work": None}]) == {}


def test_what_is_no_number_of_this_world_counts_as_missing():
    infos = [
        {"work": 0.5, "far": 10**400},
        {"work": math.inf, "far": -math.inf},
        {"work": -(10**400), "far": 1},
    ]
    found = summarize(infos)
    assert found == {"reward/work": 0.5, "reward/work/std": 0, "reward/far": 1, "reward/far/std": 0}


@pytest.mark.parametrize("text", ["x" * (LONGEST + 1), "x" * 50_000])
def test_free_text_is_no_metric(text, caplog):
    parts = Parts()
    assert parts.summarize([{"why": text, "work": 1.0}]) == {"reward/work": 1, "reward/work/std": 0}
    assert parts.summarize([{"why": "short"}]) == {}  # once free text, always
    assert [r.getMessage().split(" is ")[0] for r in caplog.records] == ["the reward's part 'why'"]
    assert len(caplog.text) < 1000


def test_many_values_over_the_steps_are_free_text():
    parts = Parts()
    made = [parts.summarize([{"of": f"class {i}"}]) for i in range(MOST + 5)]
    assert all(len(metrics) == 1 for metrics in made[:MOST]) and not any(made[MOST:])
