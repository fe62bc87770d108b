"""Seconds of `gen` (sampling, scoring, writing) and of a step: the batched rollout beside verl's own."""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.metrics import read_metrics
from preflight.names import ROOT

SAMPLES = {128: 4, 512: 3, 2048: 2}  # a step → steps; the first one is left out


def launch(folder: Path, *overrides: str) -> dict[int, dict]:
    """Metrics of a run."""
    command = [sys.executable, "launch.py", f"hydra.run.dir={folder}", "trainer.save_freq=-1", *overrides]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return read_metrics(folder / "metrics.jsonl")


def rows() -> list[list[str]]:
    """A line for each number of samples: from a model after a short SFT, so that answers end."""
    table = []
    with tempfile.TemporaryDirectory() as name:
        warm = Path(name) / "sft"
        launch(warm, "algo=sft", "trainer.total_training_steps=100", "trainer.test_freq=-1")
        for samples, steps in SAMPLES.items():
            times = {}
            for batched in ("true", "false"):
                metrics = launch(
                    Path(name) / f"{samples}-{batched}", "algo=grpo", f"lab.model.path={warm}",
                    f"lab.hw.samples_per_step={samples}", f"trainer.total_training_steps={steps}",
                    f"lab.batched_rollout={batched}", "trainer.test_freq=-1", "trainer.val_before_train=false",
                )  # fmt: skip
                times[batched] = [
                    statistics.median(metrics[s][f"timing_s/{what}"] for s in range(2, steps + 1))
                    for what in ("gen", "step")
                ]
            (gen, step), (gen_verl, step_verl) = times["true"], times["false"]
            table.append([str(samples), f"{gen:.2f} s", f"{gen_verl:.2f} s", f"{gen_verl / gen:.1f}",
                          f"{step:.2f} s", f"{step_verl:.2f} s", f"{step_verl / step:.2f}"])  # fmt: skip
    return table
