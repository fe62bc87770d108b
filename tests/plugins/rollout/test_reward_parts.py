"""Parts of rewards as metrics of a step."""

import math

import pytest

from plugins.rollout.reward_parts import summarize


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
