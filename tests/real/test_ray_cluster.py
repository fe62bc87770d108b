"""cluster=ray on a real Ray of two nodes: a run is a job there, has a worker on each node, and is stopped by Ray."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, leftovers
from ray_nodes import two_nodes

from launcher.metrics import read_metrics

pytestmark = pytest.mark.real
ENDS_S = 600


@pytest.fixture(scope="module")
def dashboard():
    """Of a Ray of two nodes; when it has gone, nothing of it or of its jobs is left."""
    before = leftovers()
    with two_nodes(cpus=32) as made:
        yield made.dashboard
    assert leftovers() <= before, leftovers() - before


@pytest.fixture
def job(dashboard, sql_demo, tiny_model, tmp_path):
    """`job("algo=sft")` → the run's folder, and its job's name."""

    def submit(*words: str) -> tuple[Path, str]:
        folder = tmp_path / "a run"
        launch(
            "cluster=ray", f"lab.cluster.address={dashboard}", f"hydra.run.dir='{folder}'",
            f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}", *words,
        )  # fmt: skip
        return folder, json.loads((folder / "job.json").read_text())["job"]

    return submit


def launch(*words: str) -> str:
    command = [sys.executable, "launch.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def client(dashboard: str):
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(dashboard)


def wait(dashboard: str, job: str, until) -> None:
    """Until something holds, or the job has ended."""
    deadline = time.monotonic() + ENDS_S
    while not until() and not client(dashboard).get_job_status(job).is_terminal():
        assert time.monotonic() < deadline, client(dashboard).get_job_logs(job)
        time.sleep(0.5)


def exits(folder: Path) -> list:
    return [
        attempt["exit"] for attempt in json.loads((folder / "run.json").read_text())["attempts"]
    ]


def test_grpo_with_a_worker_on_each_node(dashboard, job):
    from ray.util.state import list_actors, list_nodes

    folder, name = job(
        "hw=cpu", "lab.hw.nodes=2", "lab.hw.samples_per_step=32", "trainer.total_training_steps=2",
        "trainer.save_freq=-1", "trainer.test_freq=-1", "trainer.val_before_train=false",
    )  # fmt: skip
    assert "running" in launch("status", str(folder.parent))
    wait(dashboard, name, lambda: False)
    said = client(dashboard).get_job_logs(name)
    assert exits(folder) == [0], said
    assert sorted(read_metrics(folder / "metrics.jsonl")) == [1, 2]
    assert "done" in launch("status", str(folder.parent))
    places: dict[str, set[str]] = {}
    for actor in list_actors(address=dashboard, limit=1000):
        places.setdefault(actor.class_name.rpartition(".")[2], set()).add(actor.node_id)
    nodes = {node.node_id for node in list_nodes(address=dashboard)}
    assert len(nodes) == 2
    assert places["WorkerDict"] == places["vLLMHttpServer"] == nodes


def test_a_job_that_ray_stops_has_ended_as_by_ctrl_c(dashboard, job):
    folder, name = job("algo=sft", "trainer.total_training_steps=100000", "trainer.test_freq=-1")
    wait(dashboard, name, lambda: read_metrics(folder / "metrics.jsonl"))
    client(dashboard).stop_job(name)
    wait(dashboard, name, lambda: False)
    assert exits(folder) == [143], client(dashboard).get_job_logs(name)
    assert "stopped" in launch("status", str(folder.parent))
