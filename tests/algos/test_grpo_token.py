"""Token-wise GRPO: who is compared with whom."""

import pytest
import torch

from algos.grpo_token import compute_advantage

HALF = 0.5**0.5  # of two different values, the z-score (ddof = 1) of the larger


def test_a_position_is_compared_over_the_answers_that_have_it():
    rewards = torch.tensor([[0.1, 5.0, 0.3], [0.5, 0.2, 0.9], [0.9, 0.6, 0.7]])
    mask = torch.tensor([[1, 0, 1], [1, 1, 0], [1, 1, 0]])
    result = compute_advantage(rewards, mask, ["g"] * 3)[0]
    assert result[:, 0].tolist() == pytest.approx([-1, 0, 1], abs=1e-4)
    assert result[:, 1].tolist() == pytest.approx([0, -HALF, HALF], abs=1e-4)  # 5.0 is nobody's
    assert result[:, 2].tolist() == [0, 0, 0]  # one answer alone


def test_groups_do_not_mix():
    rewards = torch.tensor([[1.0], [10.0], [2.0], [30.0]])
    result = compute_advantage(rewards, torch.ones(4, 1), ["a", "b", "a", "b"])[0]
    assert result.flatten().tolist() == pytest.approx([-HALF, -HALF, HALF, HALF], abs=1e-4)


def test_equal_rewards_are_exactly_nothing():
    """0.3 + 0.3 + 0.3 is not 3 · 0.3 in float32, and an error of 3e-8 is not small against 1e-6."""
    rewards = torch.tensor([[0.3, 0.3], [0.3, 0.0], [0.3, 0.3], [0.3, 0.3]])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]])
    assert not compute_advantage(rewards, mask, ["g"] * 4)[0].any()
