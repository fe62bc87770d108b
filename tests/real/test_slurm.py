"""cluster=slurm on a real Slurm, on the loopback: a run is submitted, requeued in its middle, and goes on."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import slurm_cluster
from helpers import ROOT, leftovers

from launcher import checkpoints
from launcher.metrics import read_metrics

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        bool(slurm_cluster.missing()),
        reason=f"Slurm is not installed here (slurm-wlm, munge): no {slurm_cluster.missing()}",
    ),
]
ENDS_S = 400
STEPS = 6


@pytest.fixture
def slurm():
    """The environment of a client of a Slurm that goes again."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: a socket lies there
    try:
        with slurm_cluster.cluster(folder) as env:
            yield env
    finally:
        shutil.rmtree(folder)


def test_a_requeued_run_goes_on_to_its_end(slurm, sql_demo, tiny_model, tmp_path):
    before, folder = leftovers(), tmp_path / "a run #1"

    def call(*command: str) -> str:
        done = subprocess.run(command, env=slurm, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def launch(*words: str) -> str:
        return call(sys.executable, "launch.py", *words)

    def state() -> str:
        return call("squeue", "--noheader", "--me", "--format=%T").strip()

    def until(condition, what: str) -> None:
        deadline = time.monotonic() + ENDS_S
        while not condition():
            printed = "".join(file.read_text() for file in folder.glob("slurm-*.txt"))
            assert time.monotonic() < deadline and state(), f"{what} does not come:\n{printed}"
            time.sleep(0.2)

    said = launch(
        "cluster=slurm", f"hydra.run.dir='{folder}'", f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}",
        "lab.hw.samples_per_step=32", f"trainer.total_training_steps={STEPS}", "trainer.save_freq=1",
        "trainer.test_freq=-1", "trainer.val_before_train=false", "lab.cluster.time_min=30",
    )  # fmt: skip
    job = json.loads((folder / "job.json").read_text())["job"]
    assert f"job {job}, by" in said
    until(lambda: checkpoints.tracked(folder / "checkpoints"), "the first checkpoint")
    assert "running" in launch("status", str(tmp_path))
    call("scontrol", "requeue", job)
    until(lambda: state() == "PENDING", "the requeue")
    assert "waiting" in launch("status", str(tmp_path))
    # Slurm lets a requeued job wait two minutes
    now = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
    until(
        lambda: subprocess.run(now, env=slurm, capture_output=True).returncode == 0,
        "its next start",
    )
    deadline = time.monotonic() + ENDS_S
    while state():
        assert time.monotonic() < deadline
        time.sleep(0.5)

    printed = (folder / f"slurm-{job}.txt").read_text()
    attempts = json.loads((folder / "run.json").read_text())["attempts"]
    assert [attempt["exit"] for attempt in attempts] == [143, 0], printed
    assert sorted(read_metrics(folder / "metrics.jsonl")) == list(range(1, STEPS + 1))
    log = (folder / "log.txt").read_text()
    assert "global_step_" in log, "the second start loaded no checkpoint"
    assert "done" in launch("status", str(tmp_path))
    assert not list(Path("/tmp").glob(f"lab-{job}-*"))
    assert leftovers() <= before, leftovers() - before
