"""A sweep: one job after another, each in a process and a folder of its own, then a table of all."""

import math
import re

import pytest
import yaml
from helpers import STEPS, leftovers

from launcher.progress import read_metrics

# estimator and loss of each job of conf/sweep/algos.yaml, in its order
JOBS = {"grpo": ("grpo", "vanilla"), "gspo": ("grpo", "gspo"), "rloo": ("rloo", "vanilla")}


@pytest.mark.real
def test_the_shipped_sweep(start, tmp_path):
    before = leftovers()
    process = start(
        "-m", "sweep=algos", f"hydra.sweep.dir={tmp_path / 'sweep'}", "trainer.val_before_train=false"
    )  # fmt: skip
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    assert leftovers() <= before, leftovers() - before
    jobs = sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert jobs == ["0", "1", "2"]
    for job, (algo, (estimator, loss)) in enumerate(JOBS.items()):
        folder = tmp_path / f"sweep/{job}"
        resolved = yaml.safe_load((folder / "resolved.yaml").read_text())
        assert resolved["algorithm"]["adv_estimator"] == estimator
        assert resolved["actor_rollout_ref"]["actor"]["policy_loss"]["loss_mode"] == loss
        metrics = read_metrics(folder / "metrics.jsonl")
        assert sorted(metrics) == list(range(1, STEPS + 1))
        assert all(math.isfinite(metrics[step]["critic/score/mean"]) for step in metrics)
        # its line of the table: number, steps, reward, validation, how it ended
        line = rf"^[* ] +{job} +{STEPS} +-?\d+\.\d+ +-?\d+\.\d+ +ok .*\balgo={algo}\b"
        assert re.search(line, output, re.MULTILINE), output
    assert len(re.findall(r"^\* +[0-2] ", output, re.MULTILINE)) == 1, output
    assert re.search(r"^\* best validation: \S+/sweep/[0-2]$", output, re.MULTILINE), output
