"""Real runs of the trainers of our own: DPO, reward model, process reward model."""

import json
import math

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from algos._pairs import Chains, Pairs

pytestmark = pytest.mark.real

BATCH = ["lab.hw.sft_batch_size=32", "lab.dataset.val_max_samples=-1"]
DATA = OmegaConf.create({"max_length": 128, "apply_chat_template_kwargs": {}})


def losses(result) -> dict[int, float]:
    """The training loss of each step."""
    return {s: m["train/loss"] for s, m in result.metrics.items() if "train/loss" in m}


def folder(result, step: int):
    return result.folder / f"checkpoints/global_step_{step}/huggingface"


@pytest.fixture(scope="module")
def start_from(warm):
    return f"lab.model.path={warm.folder}"


def test_dpo(run, start_from, tmp_path):
    steps = ["trainer.total_training_steps=12", "trainer.test_freq=6", "trainer.save_freq=6"]
    result = run("algo=dpo", start_from, *BATCH, *steps)
    assert result.at(1, "train/loss") == pytest.approx(math.log(2), abs=1e-4)
    assert result.at(1, "train/margin") == pytest.approx(0, abs=1e-4)
    assert result.at(12, "val/accuracy") > 0.6
    assert result.at(12, "val/loss") < result.at(6, "val/loss") < math.log(2)
    names = ("margin", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
    for split in ("train", "val"):
        found = {n: result.at(12, f"{split}/{n}") for n in names}
        difference = found["rewards/chosen"] - found["rewards/rejected"]
        assert found["margin"] == pytest.approx(difference, abs=1e-6)
        assert found["logps/chosen"] < 0
    table = result.done.stdout
    assert " val acc" in table and " margin" in table, table
    # the same run again: from the same weights, in the same order
    model = AutoModelForCausalLM.from_pretrained(folder(result, 12), dtype="float32")
    assert model.config.architectures == ["Qwen2ForCausalLM"]

    # and on from its checkpoint: not one step is made twice
    first = (result.folder / "metrics.jsonl").read_text()
    more = run(f"resume={result.folder}", "trainer.total_training_steps=14", folder=result.folder)
    assert (result.folder / "metrics.jsonl").read_text().startswith(first)
    assert set(losses(more)) == set(range(1, 15))
    assert losses(more)[13] < math.log(2) - 0.01  # the reference is still the first model


def test_dpo_of_an_adapter(run, start_from):
    steps = ["trainer.total_training_steps=8", "trainer.test_freq=4", "trainer.save_freq=-1"]
    result = run("algo=dpo", "lab.lora_rank=8", start_from, *BATCH, *steps)
    config = yaml.safe_load((result.folder / "resolved.yaml").read_text())
    assert config["dpo"]["reference"] == "adapter"
    assert result.at(1, "train/loss") == pytest.approx(math.log(2), abs=1e-4)
    assert result.at(8, "val/loss") < result.at(4, "val/loss") < math.log(2)
    other = run("algo=dpo", "lab.lora_rank=8", "dpo.reference=engine", start_from, *BATCH, *steps,
                folder=result.folder.parent / "engine")  # fmt: skip
    for step, loss in losses(result).items():  # two ways to the same reference
        assert losses(other)[step] == pytest.approx(loss, abs=1e-4)


def test_micro_batches_and_workers_make_no_difference(run, start_from, tmp_path):
    ways = {"whole": [], "parts": ["lab.hw.tokens_per_gpu=256"], "x2": ["hw=cpu_x2"]}
    runs = {
        name: run("algo=dpo", start_from, "dpo.loss=ipo", *BATCH, *way, "trainer.test_freq=3",
                  "trainer.total_training_steps=3", folder=tmp_path / name)
        for name, way in ways.items()
    }  # fmt: skip
    assert losses(runs["whole"])[1] == pytest.approx(25, abs=0.01)  # 1 / 4 beta²
    for name in ("parts", "x2"):
        for step in (1, 2, 3):
            for metric, value in runs["whole"].metrics[step].items():
                if metric.startswith(("train/", "val/")) and "mfu" not in metric:
                    assert runs[name].at(step, metric) == pytest.approx(value, rel=2e-3, abs=2e-3)


def score(model, sequence) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=sequence["input_ids"][None]).logits[0]


@pytest.mark.parametrize("rank", [0, 8])
def test_reward_model(run, start_from, sql_demo, rank):
    steps = ["trainer.total_training_steps=40", "trainer.test_freq=20", "trainer.save_freq=-1"]
    result = run("algo=rm", f"lab.lora_rank={rank}", start_from, *BATCH, *steps)
    assert result.at(40, "val/accuracy") > 0.7
    assert result.at(40, "val/loss") < math.log(2)
    # the checkpoint is a sequence classifier that gives what was validated
    saved = folder(result, 40)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        saved, output_loading_info=True, dtype="auto"
    )
    assert not any(info.values()), info
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForSequenceClassification"]
    assert model.dtype == torch.float32 and model.num_labels == 1
    pairs = Pairs(str(sql_demo / "pref_val.parquet"), AutoTokenizer.from_pretrained(saved), DATA)
    scores = torch.tensor([[score(model, s).item() for s in pair] for pair in pairs])
    accuracy = (scores[:, 0] > scores[:, 1]).float().mean().item()
    assert accuracy == pytest.approx(result.at(40, "val/accuracy"), abs=1e-6)
    assert scores.mean().item() == pytest.approx(result.at(40, "val/score"), abs=1e-4)


def test_process_reward_model(run, start_from, sql_demo):
    steps = ["trainer.total_training_steps=60", "trainer.test_freq=30", "trainer.save_freq=-1"]
    result = run("algo=prm", start_from, *BATCH, *steps)
    last = result.metrics[60]
    assert last["val/accuracy"] > 0.75
    assert last["val/accuracy/right"] > 0.5 and last["val/accuracy/wrong"] > 0.5
    saved = folder(result, 60)
    model, info = AutoModelForTokenClassification.from_pretrained(
        saved, output_loading_info=True, dtype="auto"
    )
    assert not any(info.values()), info
    chains = Chains(str(sql_demo / "prm_val.parquet"), AutoTokenizer.from_pretrained(saved), DATA)
    right = []
    for [chain] in chains:
        at = chain["loss_mask"].bool()
        judged = score(model, chain)[at, 0] >= 0
        right += (judged == (chain["labels"][at] >= 0.5)).tolist()
    assert sum(right) / len(right) == pytest.approx(last["val/accuracy"], abs=1e-6)
