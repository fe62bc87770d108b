"""Process GRPO over distinct scores: goldens, each case of the formula, and its known flaw."""

import pytest
import torch

from algos.grpo_process import compute_advantage


def advantages(rewards, **options) -> list[list[float]]:
    """Of one group, all of whose tokens count."""
    rewards = torch.tensor(rewards)
    mask = torch.ones_like(rewards, dtype=torch.long)
    return compute_advantage(rewards, mask, ["g"] * len(rewards), **options)[0].tolist()


def check(result, expected) -> None:
    assert result == [pytest.approx(row, abs=1e-4) for row in expected]


def test_goldens():
    check(
        advantages([[0, 0.5, 0, 1.5], [0, 0.2, 0, 0.8], [0, 0, 0, 0]]),
        [[0, 0.5, 0, 0.5], [0, 0, 0, 0], [0, 0, 0, 0]],
    )
    check(
        advantages([[0.9, 0.9, 1.9, 1.9], [0.3] * 4, [0.6, 0.6, 1.2, 1.2]]),
        [[0.8715] * 4, [-0.7202] * 4, [0.0363, 0.0363, 0.0121, 0.0121]],
    )


def test_a_score_that_comes_again_counts_once():
    """Means 0.5 and 0.5: of (0.25, 0.75) and of (0.5), however often each stands there."""
    assert (
        advantages([[0.25, 0.75, 0.75], [0.5, 0.5, 0.0]]) == [pytest.approx([0] * 3, abs=1e-6)] * 2
    )


def test_each_case_of_the_formula():
    half = 0.5**0.5  # a of the better of two answers
    check(
        advantages([[1.5, 0.5, 1.0, 0.0], [0.2, 1.2, 0.0, -0.5]]),
        [[0.5 * half, 0.5 * half, half, 0], [-0.8 * half, 0.2 * half, 0, -1.5 * half]],
    )


def test_nothing_is_earned_where_nothing_was_scored():
    """The formula's flaw, and the switch."""
    rewards = [[0, 0.5, 0, 1.5], [0, 0.2, 0, 0.8], [0, 0, 0, 0]]
    assert advantages(rewards)[2] == [0] * 4
    check(
        advantages(rewards, penalize_zero=True), [[0, 0.5, 0, 0.5], [0, 0, 0, 0], [-1, -1, -1, -1]]
    )


def test_the_switch_keeps_to_the_mask():
    rewards = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    result = compute_advantage(rewards, mask, ["g", "g"], penalize_zero=True)[0]
    assert result[1, 0] < 0 and result[1, 1] == 0
