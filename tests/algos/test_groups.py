"""What the advantage functions on algos/_groups.py have in common, against plain loops (algos_reference.py).

Their goldens are in files of their own.
"""

import math

import algos_reference
import numpy as np
import pytest
import torch
from algos_reference import batch
from hypothesis import given, settings
from hypothesis import strategies as st

from algos import grpo_process, grpo_token, grpo_weighted
from algos._groups import groups
from plugins import algos

CASES = [
    (grpo_weighted, {}),
    (grpo_weighted, {"weight": 0.2}),
    (grpo_process, {}),
    (grpo_process, {"penalize_zero": True}),
    (grpo_token, {}),
]
every = pytest.mark.parametrize(
    ("module", "options"), CASES, ids=lambda x: getattr(x, "__name__", None) or str(x)
)


def name(module) -> str:
    return module.__name__.rpartition(".")[2]


def advantages(module, rewards, mask, index, **options) -> torch.Tensor:
    """What verl would get; the input must be left alone."""
    before = rewards.clone(), mask.clone()
    result, returns = module.compute_advantage(
        token_level_rewards=rewards, response_mask=mask, index=index, config=None, **options
    )
    assert torch.equal(result, returns)
    assert torch.equal(rewards, before[0]) and torch.equal(mask, before[1])
    assert result.shape == rewards.shape
    return result


def close(result, expected, rtol=1e-5, atol=1e-5) -> None:
    torch.testing.assert_close(result.double(), expected.double(), rtol=rtol, atol=atol)


@every
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_plain_loop(module, options, seed):
    rewards, mask, index = batch(seed)
    expected = getattr(algos_reference, name(module))(rewards, mask, index, **options)
    close(advantages(module, rewards, mask, index, **options), expected)


@every
def test_more_rows_than_a_block(module, options):
    rewards, mask, index = batch(0, sizes=[7] * 41 + [300] + [1] * 5, tokens=5)
    expected = getattr(algos_reference, name(module))(rewards, mask, index, **options)
    close(advantages(module, rewards, mask, index, **options), expected)


rows = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.3, 1.0, 1.3, -0.7]), min_size=3, max_size=3),
        st.lists(st.integers(0, 1), min_size=3, max_size=3),
    ),
    max_size=20,
)


@every
@settings(max_examples=60, deadline=None)
@given(rows, st.randoms())
def test_any_groups_in_any_order(module, options, rows, random):
    index = [group for group, _, _ in rows]
    rewards = torch.tensor([values for _, values, _ in rows]).view(-1, 3)
    mask = torch.tensor([there for _, _, there in rows], dtype=torch.long).view(-1, 3)
    result = advantages(module, rewards, mask, index, **options)
    close(result, getattr(algos_reference, name(module))(rewards, mask, index, **options))
    assert not result[mask == 0].any()
    order = list(range(len(rows)))
    random.shuffle(order)
    moved = advantages(module, rewards[order], mask[order], [index[i] for i in order], **options)
    close(moved, result[order])


@every
def test_group_ids_are_any_hashable_values(module, options):
    rewards, mask, index = batch(1)
    result = advantages(module, rewards, mask, np.array(index, dtype=object), **options)
    numbers = [int(group[7:]) for group in index]
    for ids in (numbers, np.array(numbers), torch.tensor(numbers), [(n, "x") for n in numbers]):
        assert torch.equal(advantages(module, rewards, mask, ids, **options), result)


@every
def test_degenerate_groups_are_finite(module, options):
    one = torch.tensor([[0.3, 0.1, 0.3]])
    ones, none = torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long)
    assert not advantages(module, one, ones, ["alone"], **options).any()
    for size in (2, 3, 7):  # equal rewards give exactly 0: their mean in float32 is not the reward
        equal = advantages(
            module, one.expand(size, 3), ones.expand(size, 3), ["g"] * size, **options
        )
        assert not equal.any()
    ungraded = advantages(module, one * 0, none, ["g-masked-0"], **options)
    assert not ungraded.any()
    assert torch.isfinite(advantages(module, one.expand(4, 3), none.expand(4, 3), ["g"] * 4)).all()
    for shape in ((0, 3), (4, 0)):
        empty = advantages(module, torch.zeros(shape), torch.zeros(shape), ["g"] * shape[0])
        assert empty.shape == shape


@every
def test_an_ungraded_answer_moves_nobody(module, options):
    """It has reward 0, no mask, and a group of its own (plugins/rollout/agent_loop.py)."""
    rewards, mask, index = batch(3, sizes=(8, 8))
    more = advantages(
        module,
        torch.cat([rewards, torch.zeros(1, 24)]),
        torch.cat([mask, torch.zeros(1, 24, dtype=torch.long)]),
        [*index, "prompt-0-masked-5"],
        **options,
    )
    assert torch.equal(more[:-1], advantages(module, rewards, mask, index, **options))
    assert not more[-1].any()


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.long])
def test_types_of_rewards_and_masks(module, options, dtype):
    rewards, mask, index = batch(2)
    rewards = (rewards * 4).round() / 4 if dtype.is_floating_point else rewards.round()
    expected = advantages(module, rewards, mask, index, **options)
    result = advantages(module, rewards.to(dtype), mask.bool(), index, **options)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    close(result, expected)
    close(advantages(module, rewards.to(dtype), mask.float(), index, **options), expected)


@pytest.mark.parametrize("module", [grpo_weighted, grpo_token])
@pytest.mark.parametrize(("shift", "scale"), [(0, 3.0), (2.0, 1.0), (-0.5, 0.25)])
def test_shift_and_scale_change_nothing(module, shift, scale):
    """Where the docstring says so; a shift of a score is one on one token of each answer."""
    rewards, mask, index = batch(4, sizes=(8, 8, 3))
    mask = torch.ones_like(mask)
    where = mask if module is grpo_token else torch.eye(24)[:1]
    moved = rewards * scale + shift * where
    result = advantages(module, rewards, mask, index)
    close(advantages(module, moved, mask, index), result, rtol=1e-3, atol=1e-4)
    assert result.any()


@pytest.mark.parametrize("module", [grpo_weighted, grpo_token])
def test_a_small_spread_of_large_rewards(module):
    """In float32, mean(r²) − mean(r)² of these is noise."""
    generator = torch.Generator().manual_seed(0)
    rewards = 10_000 + torch.randint(0, 8, (16, 1), generator=generator) / 64
    mask = torch.ones(16, 1, dtype=torch.long)
    index = ["a", "b"] * 8
    expected = getattr(algos_reference, name(module))(rewards.double(), mask, index)
    close(advantages(module, rewards, mask, index), expected)
    assert expected.abs().max() > 1


@pytest.mark.parametrize("module", [grpo_weighted, grpo_token])
@pytest.mark.parametrize("seed", range(4))
def test_advantages_are_bounded(module, seed):
    rewards, mask, index = batch(seed)
    assert advantages(module, rewards, mask, index).abs().max() < math.sqrt(8)


def test_a_table_for_each_size_of_group():
    tables = [table.tolist() for table in groups(list("abacbadb"))]
    assert tables == [[[0, 2, 5], [1, 4, 7]]]  # c and d are alone
    assert [len(table) for table in groups(list("abacbadb"), least=1)] == [2, 2]
    parts = [table.tolist() for table in groups(list("aabbccddd"), at_most=5)]
    assert parts == [[[0, 1], [2, 3]], [[4, 5]], [[6, 7, 8]]]
    assert [table.tolist() for table in groups("aaa", at_most=2)] == [[[0, 1, 2]]]


def test_who_uses_step_rewards():
    assert algos.uses_steps("grpo_process") and algos.uses_steps("grpo_token")
    assert not algos.uses_steps("grpo_weighted")
