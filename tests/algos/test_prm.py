"""algos/prm.py: cross-entropy at the ends of steps, and where these are."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from algos._pairs import Chains
from algos._worker import add_up
from algos.prm import prm_loss
from rewards._steps import tokens_at

LOGITS = [[7.0, 2.0, 7.0, -1.0], [7.0, 0.5, -3.0]]
ENDS = [[0, 1, 0, 1], [0, 1, 1]]
LABELS = [[0.0, 1.0, 0.0, 1.0], [0.0, 0.25, 0.0]]


def jagged(rows, dtype=torch.float32) -> torch.Tensor:
    tensors = [torch.tensor(row, dtype=dtype) for row in rows]
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


def prm(chains: slice, dp_size=1, requires_grad=False):
    values = jagged(LOGITS[chains]).detach().requires_grad_(requires_grad)
    data = {"loss_mask": jagged(ENDS[chains], torch.long), "labels": jagged(LABELS[chains])}
    data |= {"batch_num_tokens": 4, "dp_size": dp_size}
    return values, *prm_loss({"values": values}, data)


def test_loss_and_gradient_with_soft_labels():
    values, loss, metrics = prm(slice(None), requires_grad=True)
    at = [(2.0, 1.0), (-1.0, 1.0), (0.5, 0.25), (-3.0, 0.0)]
    p = [1 / (1 + math.exp(-x)) for x, _ in at]
    expected = -sum(
        y * math.log(q) + (1 - y) * math.log(1 - q) for q, (_, y) in zip(p, at, strict=True)
    )
    assert loss.item() == pytest.approx(expected / 4)
    loss.backward()
    gradient = values.grad.values().tolist()
    wanted = [0, p[0] - 1, 0, p[1] - 1, 0, p[2] - 0.25, p[3]]
    assert gradient == pytest.approx([g / 4 for g in wanted])
    assert metrics["accuracy"] == (2.0, 4)
    assert metrics["accuracy/right"] == (1.0, 2)  # 2.0 and -1.0 of label 1
    assert metrics["accuracy/wrong"] == (1.0, 2)  # 0.5 of label 0.25 and -3.0 of label 0
    assert metrics["score"] == pytest.approx((sum(p), 4), rel=1e-6)


def test_micro_batches_and_workers_make_no_difference():
    _, whole, whole_metrics = prm(slice(None))
    parts = [prm(slice(i, i + 1), dp_size=2) for i in (0, 1)]
    assert sum(loss.item() for _, loss, _ in parts) / 2 == pytest.approx(whole.item())
    for name, value in whole_metrics.items():
        assert add_up([[m[name]] for *_, m in parts]).tolist() == pytest.approx(value)
    assert parts[0][2]["accuracy/wrong"] == (0.0, 0)  # a class that is not there has no accuracy


def test_a_step_ends_at_the_token_of_its_last_character():
    # "ab) | cd": the token ")\n\n" begins in the first step and ends behind it
    starts = [0, 2, 5, 6]  # "ab", ")\n\n", "c", "d"
    assert tokens_at(starts, [3, 7]) == [1, 3]
    assert tokens_at([0, 0, 3], [3, 4]) == [1, 2]  # one character in two tokens


STEPS = ["SELECT COUNT(*)", "FROM customer\nWHERE age > 30", "-- done"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def chains(tokenizer, tmp_path, steps, labels, max_length=128) -> Chains:
    row = {"prompt": [{"role": "user", "content": "How many?"}], "steps": steps, "labels": labels}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    data = OmegaConf.create({"max_length": max_length, "apply_chat_template_kwargs": {}})
    return Chains(str(tmp_path / "rows.parquet"), tokenizer, data)


def test_labels_stand_at_the_ends_of_steps(tokenizer, tmp_path):
    [[chain]] = chains(tokenizer, tmp_path, STEPS, [1.0, 0.5, 0.0]).items
    ids, at = chain["input_ids"], chain["loss_mask"].nonzero().flatten().tolist()
    assert chain["labels"][at].tolist() == [1.0, 0.5, 0.0]
    assert chain["labels"].count_nonzero() == 2
    # what the model has read when it judges a step: all of it, and nothing of the next
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How many?"}], add_generation_prompt=True, tokenize=False
    )
    for i, end in enumerate(at):
        before, read = tokenizer.decode(ids[:end]), tokenizer.decode(ids[: end + 1])
        wanted = prompt + "\n\n".join(STEPS[: i + 1])
        assert read.rstrip() == wanted and before.rstrip() != wanted
    assert tokenizer.decode(ids) == prompt + "\n\n".join(STEPS) + tokenizer.eos_token


def test_blanks_around_a_step_do_not_move_its_end(tokenizer, tmp_path):
    loose = [f"\n{step} \n" for step in STEPS]
    [[one]] = chains(tokenizer, tmp_path, STEPS, [1.0, 1.0, 0.0]).items
    [[two]] = chains(tokenizer, tmp_path, loose, [1.0, 1.0, 0.0]).items
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_long_chain_is_left_out(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="1 of 1 rows are longer"):
        chains(tokenizer, tmp_path, STEPS, [1.0, 1.0, 0.0], max_length=20)
