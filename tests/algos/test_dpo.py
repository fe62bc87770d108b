"""algos/dpo.py: the loss against a plain float64 formula on a real small model, in value and gradient;
micro-batches; the rows of algos/_pairs.py."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from algos._pairs import Pairs
from algos._worker import add_up, means
from algos.dpo import answer_logps, dpo_loss, pair_losses

DATA = OmegaConf.create({"max_length": 128, "apply_chat_template_kwargs": {}})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two would only wait for each other: the model is tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        initializer_range=0.3, attn_implementation="eager",
    )  # fmt: skip
    return Qwen2ForCausalLM(config).double()


@pytest.fixture(scope="module")
def policy():
    return tiny(0)


@pytest.fixture(scope="module")
def reference():
    return tiny(1).requires_grad_(False)


@pytest.fixture(scope="module")
def batch():
    """Three pairs: token ids and the length of the prompt of each of the six sequences."""
    generator = torch.Generator().manual_seed(0)
    sequences = []
    for prompt_length, *answer_lengths in ((3, 4, 2), (5, 1, 7), (2, 6, 6)):
        prompt = torch.randint(50, (prompt_length,), generator=generator)
        for n in answer_lengths:
            answer = torch.randint(50, (n,), generator=generator)
            sequences.append((torch.cat([prompt, answer]), prompt_length))
    return sequences


def jagged(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def engine_output(model, sequences) -> torch.Tensor:
    """What verl's engine gives the loss: at t, the log-probability of the packed row's token t + 1."""
    packed = torch.cat([ids for ids, _ in sequences])
    logits = torch.cat([model(ids[None]).logits[0] for ids, _ in sequences])
    flat = logits.log_softmax(-1).gather(1, packed.roll(-1)[:, None])[:, 0]
    offsets = torch.tensor([0] + [len(ids) for ids, _ in sequences]).cumsum(0)
    return torch.nested.nested_tensor_from_jagged(flat.float(), offsets)


def micro_batch(reference, sequences, pairs: int) -> dict:
    mask = jagged([(torch.arange(len(ids)) >= n).long() for ids, n in sequences])
    logps = answer_logps(engine_output(reference, sequences), mask)
    return {"loss_mask": mask, "ref_logps": logps, "global_batch_size": pairs, "dp_size": 1}


def by_hand(policy, reference, sequences, beta, loss, eps) -> torch.Tensor:
    """The papers' formulas, one sequence at a time, in float64."""

    def logp(model, ids, n):
        logits = model(ids[None]).logits[0].log_softmax(-1)
        return sum(logits[t - 1, ids[t]] for t in range(n, len(ids)))

    total = 0.0
    for chosen, rejected in zip(sequences[0::2], sequences[1::2], strict=True):
        delta = logp(policy, *chosen) - logp(reference, *chosen)
        delta = delta - (logp(policy, *rejected) - logp(reference, *rejected))
        if loss == "ipo":
            total = total + (delta - 1 / (2 * beta)) ** 2
        else:
            p = 1 / (1 + torch.exp(-beta * delta))
            total = total - (1 - eps) * torch.log(p) - eps * torch.log(1 - p)
    return total / (len(sequences) // 2)


def gradient(policy, loss: torch.Tensor) -> torch.Tensor:
    parameters = list(policy.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


OPTIONS = [(0.1, "sigmoid", 0.0), (0.5, "sigmoid", 0.2), (0.1, "ipo", 0.0), (1.0, "ipo", 0.0)]


@pytest.mark.parametrize(("beta", "kind", "eps"), OPTIONS)
def test_loss_and_gradient_are_the_papers(policy, reference, batch, beta, kind, eps):
    options = {"beta": beta, "loss": kind, "label_smoothing": eps}
    data = micro_batch(reference, batch, pairs=3)
    loss, _ = dpo_loss({"log_probs": engine_output(policy, batch)}, data, **options)
    expected = by_hand(policy, reference, batch, beta, kind, eps)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = gradient(policy, loss), gradient(policy, expected)
    assert theirs.norm() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.norm().item())


@pytest.mark.parametrize(("beta", "kind", "eps"), OPTIONS)
def test_starts_at_the_known_loss(policy, batch, beta, kind, eps):
    data = micro_batch(policy, batch, pairs=3)
    options = {"beta": beta, "loss": kind, "label_smoothing": eps}
    loss, metrics = dpo_loss({"log_probs": engine_output(policy, batch)}, data, **options)
    assert loss.item() == pytest.approx(1 / (4 * beta**2) if kind == "ipo" else math.log(2))
    assert metrics["margin"] == (0.0, 3) and metrics["accuracy"] == (0.0, 3)


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (1, 1, 1)])
def test_micro_batches_and_workers_make_no_difference(policy, reference, batch, sizes):
    options = {"beta": 0.3, "loss": "sigmoid", "label_smoothing": 0.1}

    def part(sequences, dp_size):
        data = micro_batch(reference, sequences, pairs=3) | {"dp_size": dp_size}
        return dpo_loss({"log_probs": engine_output(policy, sequences)}, data, **options)

    whole, whole_metrics = part(batch, 1)
    losses, metrics, begin = [], [], 0
    for size in sizes:  # each a micro-batch of a worker of its own; verl averages over workers
        loss, found = part(batch[2 * begin : 2 * (begin + size)], len(sizes))
        losses.append(loss / len(sizes))
        metrics.append(found)
        begin += size
    assert sum(losses).item() == pytest.approx(whole.item(), rel=1e-6)
    for name, (total, n) in whole_metrics.items():
        summed = add_up([[m[name]] for m in metrics])
        assert summed.tolist() == pytest.approx([total, n], rel=1e-5)
    logged = means({"margin": torch.tensor([3.0, 2]), "none": torch.zeros(2)}, "val")
    assert logged == {"val/margin": 1.5}


def test_label_smoothing_is_the_mix_of_both_directions():
    delta = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.double)
    right, wrong = (pair_losses(sign * delta, 0.5, "sigmoid", 0.0) for sign in (1, -1))
    smoothed = pair_losses(delta, 0.5, "sigmoid", 0.25)
    torch.testing.assert_close(smoothed, 0.75 * right + 0.25 * wrong)
    assert pair_losses(torch.tensor([1e4]), 1.0, "sigmoid", 0.0).item() == 0  # and no overflow
    assert pair_losses(torch.tensor([-1e4]), 1.0, "sigmoid", 0.0).item() == 1e4


def pair(chosen: str, rejected: str) -> dict:
    says = {"role": "assistant"}
    return {
        "prompt": [{"role": "user", "content": "Which customers are in Oslo?"}],
        "chosen": [says | {"content": chosen}],
        "rejected": [says | {"content": rejected}],
    }


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def write(tmp_path, *rows: dict) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), tmp_path / "rows.parquet")
    return str(tmp_path / "rows.parquet")


def test_rows_are_what_the_policy_sees(tokenizer, tmp_path):
    row = pair("SELECT name FROM customer", "SELECT 1")
    [item] = Pairs(write(tmp_path, row), tokenizer, DATA).items
    prompt = tokenizer.apply_chat_template(
        row["prompt"], add_generation_prompt=True, tokenize=False
    )
    for sequence, text in zip(item, ("SELECT name FROM customer", "SELECT 1"), strict=True):
        ids, mask = sequence["input_ids"], sequence["loss_mask"].bool()
        assert tokenizer.decode(ids[~mask]) == prompt
        assert tokenizer.decode(ids[mask]) == text + tokenizer.eos_token  # and nothing after it
        assert sequence["position_ids"].tolist() == list(range(len(ids)))


def test_long_pairs_are_left_out_and_counted(tokenizer, tmp_path):
    file = write(tmp_path, pair("short", "SELECT " + "name, " * 200), pair("short", "brief"))
    dataset = Pairs(file, tokenizer, DATA)
    assert len(dataset) == 1 and dataset.left_out == 1
    assert "1 of 2 rows are longer than data.max_length=128" in dataset.report
    assert len(Pairs(file, tokenizer, OmegaConf.merge(DATA, {"max_length": 5000}))) == 2
    with pytest.raises(ValueError, match="2 of 2 rows are longer"):
        Pairs(file, tokenizer, OmegaConf.merge(DATA, {"max_length": 10}))
    assert len(Pairs([file, file], tokenizer, DATA, max_samples=3)) == 1


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer, tmp_path):
    template = "{% if add_generation_prompt %}ask{% else %}told{% endif %}"
    data = OmegaConf.create(
        {"max_length": 99, "apply_chat_template_kwargs": {"chat_template": template}}
    )
    with pytest.raises(ValueError, match="renders a prompt in another way"):
        Pairs(write(tmp_path, pair("a", "b")), tokenizer, data)
