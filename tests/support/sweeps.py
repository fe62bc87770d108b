"""Folders of sweeps as launch.py leaves them, made without a run."""

import json
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from launcher.results import Attempt

METRIC = "val-core/words/acc/mean@1"


def make_sweep(folder: Path, *words: str, params: dict[str, str] | None = None) -> Path:
    """The folder, with the words of its command line as Hydra writes them."""
    folder.mkdir(parents=True)
    overrides = {"hydra": ["hydra.mode=MULTIRUN"], "task": list(words)}
    hydra = {"sweeper": {"params": params}, "overrides": overrides}
    OmegaConf.save(OmegaConf.create({"hydra": hydra}), folder / "multirun.yaml")
    return folder


def make_job(
    folder: Path,
    words: list[str],
    validations: dict[int, np.ndarray | None],
    exit_status: int | None = 0,
    metric: str = METRIC,
    rows: bool = True,
    reward: str = "pkg://rewards.exact",
) -> Path:
    """A job that has made the steps of its validations; of each what it got for each question.

    Args:
        rows: whether its answers were written down, or only their mean.
        exit_status: None: it runs, or was killed.
    """
    seed = next((int(w.partition("=")[2]) for w in words if w.startswith("lab.seed=")), 0)
    config = {
        "lab": {"seed": seed, "trainer": {"entry": "verl.trainer.main_ppo"}},
        "data": {"val_files": "val.parquet"},
        "reward": {"custom_reward_function": {"path": reward, "name": "compute_score"}},
    }
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(words, folder / ".hydra/overrides.yaml")
    attempt = Attempt(folder, ["launch.py"], OmegaConf.create(config))
    with open(folder / "metrics.jsonl", "w") as file:
        for step, values in validations.items():
            data = {"critic/score/mean": 0.5, "training/global_step": step}
            if values is not None:
                data[metric] = float(np.mean(values))
            file.write(json.dumps({"step": step, "data": data}) + "\n")
    if rows:
        (folder / "validation").mkdir()
        for step, values in validations.items():
            if values is not None:
                made = [row(number, float(value)) for number, value in enumerate(values)]
                text = "".join(json.dumps(one) + "\n" for one in made)
                (folder / f"validation/{step}.jsonl").write_text(text)
    if exit_status is not None:
        attempt.end(exit_status)
    return folder


def row(number: int, value: float) -> dict:
    """An answer of a validation."""
    return {"input": f"user\nquestion {number}\nassistant\n", "output": "x", "gts": str(number),
            "score": value, "acc": value, "masked": 0.0}  # fmt: skip
