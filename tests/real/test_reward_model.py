"""Real runs scored by a model that was trained here, served by verl's own reward-model worker: what
the policy got is what the trained model says with transformers, on the same texts."""

import json
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import ROOT, Run
from transformers import AutoTokenizer

from preflight.resolvers import model_path

pytestmark = pytest.mark.real
THOUGHT = "Which table?\n\nWhich columns?\n\n"


@pytest.fixture(scope="module")
def demo(sql_demo):
    """Questions with their answers: [(prompt, text)]."""
    rows = pq.read_table(sql_demo / "sft_train.parquet").to_pylist()
    return [(row["messages"][:-1], row["messages"][-1]["content"]) for row in rows]


@pytest.fixture(scope="module")
def train(tmp_path_factory, tiny_model):
    """`train("rm", rows, ...)` → the folder of a run of that algorithm on rows."""

    def go(algo: str, rows: list[dict], *overrides: str):
        folder = tmp_path_factory.mktemp(algo)
        pq.write_table(pa.Table.from_pylist(rows[:-64]), folder / "train.parquet")
        pq.write_table(pa.Table.from_pylist(rows[-64:]), folder / "val.parquet")
        command = [sys.executable, "launch.py", f"algo={algo}", f"hydra.run.dir={folder / 'run'}",
                   f"lab.model.path={tiny_model}", f"data.train_files={folder}/train.parquet",
                   f"data.val_files={folder}/val.parquet", "trainer.test_freq=-1", "trainer.save_freq=-1",
                   *overrides]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return folder / "run"

    return go


@pytest.fixture(scope="module")
def reward_model(train, demo):
    """Prefers the right answer to the one of another question."""

    def said(text):
        return [{"role": "assistant", "content": text}]

    others = [text for _, text in demo[1:] + demo[:1]]
    rows = [
        {"prompt": prompt, "chosen": said(text), "rejected": said(other)}
        for (prompt, text), other in zip(demo, others, strict=True)
        if text != other
    ]
    return train("rm", rows, "trainer.total_training_steps=30", "optim.lr=1e-3")


@pytest.fixture(scope="module")
def process_model(train, demo):
    """Steps are right but for every other query."""
    steps = THOUGHT.split("\n\n")[:-1]
    rows = [
        {"prompt": prompt, "steps": [*steps, text], "labels": [1.0, 0.5, float(i % 2)]}
        for i, (prompt, text) in enumerate(demo)
    ]
    return train("prm", rows, "trainer.total_training_steps=30", "optim.lr=1e-3")


@pytest.fixture(scope="module")
def thinker(train, demo):
    """A policy that writes steps."""
    rows = [
        {"messages": [*prompt, {"role": "assistant", "content": THOUGHT + text}]}
        for prompt, text in demo
    ]
    return train("sft", rows, "trainer.total_training_steps=60", "lab.hw.sft_batch_size=16")


def load(run, auto):
    folder = model_path(str(run))
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def rows_of(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def prompt_of(row, tokenizer) -> list[int]:
    """The prompt of a dumped sample, which is dumped without its special tokens."""
    question = re.fullmatch(r"user\n(.*)\nassistant\n", row["input"], re.DOTALL)[1]
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def expected_reward(row, model, tokenizer) -> float:
    answer = tokenizer(row["output"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    return model(torch.tensor([prompt_of(row, tokenizer) + answer])).logits.item()


@torch.no_grad()
def expected_steps(row, model, tokenizer) -> list[float]:
    """P of each step, from a pass over the text up to its end alone: the model is causal."""
    steps = [step.strip() for step in re.split(r"\n\s*\n", row["output"]) if step.strip()]
    text, found = "\n\n".join(steps), []
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    end = -2
    for step in steps:
        end += 2 + len(step)
        begun = [token for token, (start, _) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
                 if start < end]  # fmt: skip
        logits = model(torch.tensor([prompt_of(row, tokenizer) + begun])).logits
        found.append(logits[0, -1, 0].sigmoid().item())
    return found


@pytest.mark.parametrize("gpus", [1, 0])  # of its own, or taking turns with the policy
def test_a_reward_model_scores_a_run(run, warm, reward_model, gpus):
    from transformers import AutoModelForSequenceClassification

    assert Run(reward_model, None).at(30, "train/accuracy") > 0.7  # it has learnt something to say
    result = run(
        "reward=model",
        f"lab.reward_model.path={reward_model}",
        f"lab.reward_model.gpus={gpus}",
        f"lab.model.path={warm.folder}",
    )
    model, tokenizer = load(reward_model, AutoModelForSequenceClassification)
    for file, count in {
        "rollouts/1": 32,
        "rollouts/2": 32,
        "validation/0": 16,
        "validation/2": 16,
    }.items():
        rows = rows_of(result.folder / f"{file}.jsonl")
        assert len(rows) == count
        expected = [expected_reward(row, model, tokenizer) for row in rows]
        assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-4)
        assert len(set(expected)) > count / 4
    assert result.at(2, "actor/grad_norm") > 0
    assert result.at(2, "val-core/sql_demo/reward/mean@1") == pytest.approx(
        sum(expected) / count, abs=1e-4
    )
    if gpus:
        assert result.at(1, "reward/rm_failed") == result.at(1, "reward/masked") == 0


def test_a_process_reward_model_scores_the_steps_of_a_run(run, thinker, process_model):
    from transformers import AutoModelForTokenClassification

    result = run(
        "reward=prm",
        f"lab.reward_model.path={process_model}",
        "lab.step_rewards=true",
        f"lab.model.path={thinker}",
        "lab.dataset.max_response_length=80",
        "reward.custom_reward_function.reward_kwargs.rm_coef=0.5",
        "reward.custom_reward_function.reward_kwargs.reward_coef=2",
    )
    model, tokenizer = load(process_model, AutoModelForTokenClassification)
    rows = rows_of(result.folder / "validation/0.jsonl") + rows_of(
        result.folder / "validation/2.jsonl"
    )
    for row in rows:
        expected = expected_steps(row, model, tokenizer)
        assert row["step_count"] == len(expected)
        assert row["step_mean"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)
        assert row["step_min"] == pytest.approx(min(expected), abs=1e-4)
        # all rewards on the tokens of the answer together
        assert row["reward"] == pytest.approx(
            2 * row["outcome_score"] + 0.5 * sum(expected), abs=1e-4
        )
    assert sum(row["step_count"] >= 3 for row in rows) > len(rows) / 2  # it does write steps
    assert result.at(2, "actor/grad_norm") > 0
    assert result.at(2, "reward/rm_failed") == result.at(2, "reward/masked") == 0
