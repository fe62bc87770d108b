"""A sweep: one job after another, each in a process and a folder of its own, then a table of all."""

import json
import re

import pytest
import yaml
from helpers import STEPS, leftovers

from launcher.metrics import read_metrics

# estimator and loss of two settings of conf/sweep/algos.yaml, in its order
SETTINGS = {"grpo": ("grpo", "vanilla"), "rloo": ("rloo", "vanilla")}


@pytest.mark.real
def test_the_shipped_sweep_with_two_settings_and_two_seeds(start, tmp_path):
    before, folder = leftovers(), tmp_path / "sweep"
    process = start(
        "-m", "sweep=algos", "algo=grpo,rloo", "lab.seed=0,1", f"hydra.sweep.dir={folder}",
        "lab.dataset.val_max_samples=-1",  # else each seed is asked other questions
    )  # fmt: skip
    output = process.communicate(timeout=1200)[0]
    assert process.returncode == 0, output
    assert leftovers() <= before, leftovers() - before
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["0", "1", "2", "3"]
    jobs = [(algo, seed) for algo in SETTINGS for seed in (0, 1)]
    for number, (algo, seed) in enumerate(jobs):
        assert f"job {number + 1} of 4: algo={algo}, lab.seed={seed} → " in output, output
        resolved = yaml.safe_load((folder / f"{number}/resolved.yaml").read_text())
        assert resolved["lab"]["seed"] == seed
        estimator, loss = SETTINGS[algo]
        assert resolved["algorithm"]["adv_estimator"] == estimator
        assert resolved["actor_rollout_ref"]["actor"]["policy_loss"]["loss_mode"] == loss
        assert sorted(read_metrics(folder / f"{number}/metrics.jsonl")) == list(range(STEPS + 1))
    for algo in SETTINGS:  # its line of the table: seeds, before, after, ...
        assert re.search(rf"^[* ] +{algo} +2 +\d\.\d+ +\d\.\d+ ", output, re.MULTILINE), output
    asked = len((folder / f"0/validation/{STEPS}.jsonl").read_text().splitlines())
    assert f"right answers on {asked} held-out questions, mean over seeds" in output
    made = json.loads((folder / "sweep.json").read_text())
    logged = [read_metrics(folder / f"{number}/metrics.jsonl") for number in range(4)]
    for at, step in (("before", 0), ("after", STEPS)):
        assert [job[at] for job in made["jobs"]] == [
            metrics[step]["val-core/sql_demo/acc/mean@1"] for metrics in logged
        ]
    of_rows = made["settings"][0]["after"]["value"]  # what the rows say is what the run has logged
    assert of_rows == pytest.approx(sum(job["after"] for job in made["jobs"][:2]) / 2)
    assert made["settings"][1]["against_first"]["questions"] == asked
    assert "<svg" in (folder / "sweep.html").read_text() and (folder / "sweep.csv").is_file()
