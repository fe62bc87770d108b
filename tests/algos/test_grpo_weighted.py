"""Weighted GRPO: the golden, and a plain reference loop."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algos.grpo_weighted import compute_advantage


def advantages(scores, groups, **options) -> list[float]:
    rewards = torch.zeros(len(scores), 3)
    rewards[:, -1] = torch.tensor(scores)
    mask = torch.tensor([[1, 1, 0]] * len(scores))
    result, returns = compute_advantage(rewards, mask, groups, **options)
    assert torch.equal(result, returns)
    assert not result[:, 2].any()  # masked
    assert torch.equal(result[:, 0], result[:, 1])  # broadcast
    return result[:, 0].tolist()


def reference(scores, groups, weight=0.5) -> list[float]:
    """The formula, an answer at a time."""
    out = []
    for score, group in zip(scores, groups, strict=True):
        own = [s for s, g in zip(scores, groups, strict=True) if g == group]
        std = statistics.stdev(own) if len(own) > 1 else 0.0
        place = (score - min(own)) / (max(own) - min(own)) if max(own) > min(own) else 1.0
        out.append((score - statistics.mean(own)) / (std + 1e-6) * (weight + (1 - weight) * place))
    return out


def test_golden():
    assert advantages([1, 0, 0, 0.5], ["g"] * 4) == pytest.approx(
        [1.3056, -0.3917, -0.3917, 0.1958], abs=1e-4
    )


def test_degenerate_groups_are_zero():
    assert advantages([1, 1, 1, 0.3], ["a", "a", "a", "b"]) == pytest.approx([0] * 4)


def test_the_weight_is_an_option():
    scores, groups = [1, 0, 0, 0.5], ["g"] * 4
    plain = advantages(scores, groups, weight=1.0)
    assert plain == pytest.approx(reference(scores, groups, 1.0), abs=1e-5)
    assert plain != pytest.approx(advantages(scores, groups))


tenths = st.integers(-20, 20).map(lambda n: n / 10)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(tenths, st.sampled_from("abcd")), min_size=1, max_size=24), st.randoms())
def test_equals_the_reference_in_any_order(rows, random):
    scores, groups = zip(*rows, strict=True)
    result = advantages(list(scores), list(groups))
    assert result == pytest.approx(reference(scores, groups), abs=1e-4)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert advantages([scores[i] for i in order], [groups[i] for i in order]) == pytest.approx(
        [result[i] for i in order], abs=1e-5
    )
