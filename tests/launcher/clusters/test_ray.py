"""cluster=ray: what is submitted, what is refused, how a job's run is shown, and whose turn it is."""

import json
import shlex
import signal
import subprocess
import sys

import pytest
from helpers import ROOT
from ray_jobs_server import Jobs, serving

from launcher import clusters
from launcher.clusters import ray, turn
from preflight import cluster


@pytest.fixture
def jobs():
    with serving(Jobs()) as made:
        yield made


@pytest.fixture
def launch(jobs, sql_demo, tiny_model):
    """`launch("lab.seed=1")` → a start with cluster=ray that has ended; the machine's own Ray is somebody else's."""
    base = ["cluster=ray", f"lab.cluster.address={jobs.address}", f"lab.dataset.dir={sql_demo}",
            f"lab.model.path={tiny_model}", "lab.check_data=false"]  # fmt: skip

    def start(*words: str, base: list[str] = base) -> subprocess.CompletedProcess:
        import os

        env = os.environ | {
            "RAY_ADDRESS": "127.0.0.1:1",
            "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1",
        }
        command = [sys.executable, "launch.py", *base, *words]
        return subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
        )

    return start


def test_a_run_is_a_job_until_it_has_ended(jobs, launch, tmp_path):
    folder = tmp_path / "a run"
    done = launch(
        f"hydra.run.dir='{folder}'", "hw=cpu", "lab.hw.nodes=2", "+lab.cluster.env_vars.A=1"
    )
    assert done.returncode == 0, done.stderr
    (job,) = jobs.jobs
    words = shlex.split(job["entrypoint"])
    assert words[:3] == ["cd", str(ROOT), "&&"]
    assert words[-2:] == [str(ROOT / "launch.py"), f"resume={folder}"]
    assert {"--nodes=2", "--gpus=1"} < set(words)
    assert job["runtime_env"]["env_vars"].items() >= {"A": "1", cluster.JOB: "ray"}.items()
    assert f"ray job logs --follow --address {jobs.address} raysubmit_0" in done.stdout
    assert not (folder / "run.json").exists()

    again = launch(f"resume={folder}", base=[])
    assert (
        again.returncode == 2
        and "belongs to job raysubmit_0 of ray, which is running" in again.stderr
    )
    assert f"ray job stop --address {jobs.address} raysubmit_0" in again.stderr
    job["status"] = "PENDING"
    assert "waiting" in launch("status", str(tmp_path), base=[]).stdout
    job["status"] = "FAILED"
    assert "ended early" in launch("status", str(tmp_path), base=[]).stdout
    assert launch(f"resume={folder}", base=[]).returncode == 0 and len(jobs.jobs) == 2


def test_each_run_of_a_sweep_is_a_job(jobs, launch, tmp_path):
    done = launch("-m", "lab.seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 0, done.stderr
    asked = [shlex.split(job["entrypoint"])[-1] for job in jobs.jobs]
    assert asked == [f"resume={tmp_path / 'sweep' / number}" for number in "01"]


def test_a_folder_that_is_sent(composer, tmp_path):
    (tmp_path / "run").mkdir()
    config = composer(
        "cluster=ray", f"lab.cluster.working_dir={tmp_path}", "lab.cluster.python=python"
    )
    assert ray.environment(config)["working_dir"] == str(tmp_path)
    command = ray.entrypoint(config, tmp_path / "run")
    assert command.startswith("exec python ") and str(ROOT / "launch.py") in command
    config.lab.cluster.working_dir = str(ROOT)
    assert ray.entrypoint(config, tmp_path / "run").endswith(
        f"-- python launch.py resume={tmp_path / 'run'}"
    )


@pytest.mark.parametrize("algo, of_the_job", [("grpo", False), ("dpo", True), ("self_play", True)])
def test_gpus_are_the_runs_or_the_jobs(composer, algo, of_the_job):
    """Self-play starts a Ray of its own for each round, as on one machine."""
    assert ray.takes_gpus(composer("cluster=ray", f"algo={algo}")) is not of_the_job


def test_training_under_torchrun_asks_ray_itself_for_its_gpus(jobs, launch, tmp_path):
    done = launch(f"hydra.run.dir={tmp_path / 'run'}", "algo=sft")
    assert done.returncode == 0, done.stderr
    assert jobs.jobs[0]["entrypoint_num_gpus"] == 1 and "turn" not in jobs.jobs[0]["entrypoint"]


def test_a_cluster_that_is_gone_is_no_error_of_the_others(launch, jobs, tmp_path):
    assert launch(f"hydra.run.dir={tmp_path / 'run'}").returncode == 0
    record = tmp_path / "run/job.json"
    record.write_text(
        json.dumps(json.loads(record.read_text()) | {"address": "http://127.0.0.1:1"})
    )
    assert launch(f"hydra.run.dir={tmp_path / 'other'}").returncode == 0
    said = launch("status", str(tmp_path), base=[]).stdout
    assert "not known (" in said and "running" in said


class Nodes:
    """A cluster of one node with a GPU: the turn, the GPU, and what takes it."""

    def __init__(self, monkeypatch, waits: int):
        self.waits, self.had, self.slept = waits, [], 0
        monkeypatch.setattr(turn, "alive", lambda gpus: [1] if gpus <= 1 else [])
        monkeypatch.setattr(turn, "free", lambda gpus: int(self.slept >= self.waits))
        monkeypatch.setattr(turn, "taken", lambda: self.had.append("taken") or "turn")
        monkeypatch.setattr(turn, "left", lambda held: self.had.append("left"))
        monkeypatch.setattr(turn, "groups", set)
        monkeypatch.setattr(turn.time, "sleep", self.sleep)

    def sleep(self, _seconds: float) -> None:
        self.slept += 1


@pytest.mark.parametrize("waits", [0, 3])
def test_a_run_begins_when_gpus_are_free_and_gives_its_turn_back(monkeypatch, waits):
    nodes, told = Nodes(monkeypatch, waits), []
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert turn.begun([sys.executable, "-c", "raise SystemExit(3)"], 1, 1, told.append) == 3
    finally:
        signal.signal(signal.SIGTERM, before)
    assert nodes.slept >= waits and nodes.had == ["taken", "left"]
    assert len(told) == (waits > 0)


def test_a_run_that_the_cluster_can_never_take_does_not_wait(monkeypatch):
    nodes = Nodes(monkeypatch, 10**9)
    assert turn.begun([sys.executable, "-c", "raise SystemExit(3)"], 1, 8, print) == 3
    assert nodes.had == []


def test_every_engine_has_what_the_others_ask_of_it():
    from preflight import names

    engines = set(names.groups()["cluster"]) - {cluster.NONE}
    assert engines == {"slurm", "ray", "kuberay", "sky"}
    for engine in engines:
        module = clusters.module(engine)
        assert all(callable(getattr(module, name)) for name in ("submit", "states", "stop")), engine
