"""algos/rm.py: the Bradley-Terry loss against its formula, and where the score is read."""

import math

import pytest
import torch

from algos._worker import add_up
from algos.rm import rm_loss


def jagged(rows: list[list[float]]) -> torch.Tensor:
    tensors = [torch.tensor(row, dtype=torch.float32) for row in rows]
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def rm(rows, pairs, dp_size=1, **options):
    data = {"global_batch_size": pairs, "dp_size": dp_size}
    return rm_loss({"values": jagged(rows)}, data, **options)


ROWS = [[9, 9, 1.5], [9, 0.5], [9, 9, 9, -1], [2.0], [9, 0.25], [9, 9, 0.25]]  # scores stand last
MARGINS = [1.0, -3.0, 0.0]


def test_loss_and_metrics():
    loss, metrics = rm(ROWS, pairs=3)
    expected = sum(math.log(1 + math.exp(-m)) for m in MARGINS) / 3
    assert loss.item() == pytest.approx(expected)
    assert metrics["accuracy"] == (1.0, 3)  # a tie is no success
    assert metrics["margin"] == pytest.approx((-2.0, 3))
    assert metrics["score"] == pytest.approx((3.5, 6))
    assert metrics["score/chosen"] == pytest.approx((0.75, 3))
    assert metrics["score/rejected"] == pytest.approx((2.75, 3))


def test_centering_adds_the_square_of_the_sum():
    sums = [2.0, 1.0, 0.5]
    loss, _ = rm(ROWS, pairs=3, center=0.1)
    plain, _ = rm(ROWS, pairs=3)
    assert loss.item() - plain.item() == pytest.approx(0.1 * sum(s * s for s in sums) / 3)


def test_gradient_is_at_the_last_tokens_alone():
    values = jagged(ROWS).detach().requires_grad_()
    loss, _ = rm_loss({"values": values}, {"global_batch_size": 3, "dp_size": 1})
    loss.backward()
    last = (values.offsets()[1:] - 1).tolist()
    gradient = values.grad.values()
    for m, chosen, rejected in zip(MARGINS, last[0::2], last[1::2], strict=True):
        push = -1 / (1 + math.exp(m)) / 3  # d/ds of -log sigmoid
        assert gradient[chosen].item() == pytest.approx(push)
        assert gradient[rejected].item() == pytest.approx(-push)
    others = [i for i in range(len(gradient)) if i not in last]
    assert not gradient[others].any()


def test_micro_batches_and_workers_make_no_difference():
    whole, whole_metrics = rm(ROWS, pairs=3, center=0.1)
    parts = [rm(rows, pairs=3, dp_size=2, center=0.1) for rows in (ROWS[:2], ROWS[2:])]
    assert sum(loss.item() for loss, _ in parts) / 2 == pytest.approx(whole.item())
    for name, value in whole_metrics.items():
        assert add_up([[m[name]] for _, m in parts]).tolist() == pytest.approx(value)
