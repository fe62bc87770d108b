"""cluster=ray: a job of a Ray cluster that is up, through Ray's jobs API; each run of a sweep is a job."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from launcher import clusters
from launcher.supervisor import GRACE_S
from preflight import cluster, ray_jobs
from preflight.checks.ray import gpus_of_node
from preflight.facts import is_driver, is_rl
from preflight.mistakes import Mistake, near

STOP_S = str(int(2 * GRACE_S))  # until Ray kills what it stops; its own 3 are less than a run needs


def environment(config: DictConfig, engine: str = "ray") -> dict[str, Any]:
    """Of the job, as Ray's runtime environment. Where `lab.env` names a variable as well, the run has that value."""
    asked = {key: str(value) for key, value in config.lab.cluster.env_vars.items()}
    own = {
        cluster.JOB: engine,
        "RAY_JOB_STOP_WAIT_TIME_S": STOP_S,
        "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    }
    sent = config.lab.cluster.get("working_dir")
    return {"env_vars": asked | own, **({"working_dir": os.path.abspath(sent)} if sent else {})}


def takes_gpus(config: DictConfig) -> bool:
    """Whether the run itself asks Ray for its GPUs, on all its nodes; else they are the job's, on the head."""
    return is_rl(config) and not is_driver(config)


def entrypoint(config: DictConfig, run_dir: Path) -> str:
    """The job's command, for sh. It begins in this folder, or in Ray's copy of the one that is sent."""
    sent = config.lab.cluster.working_dir
    is_code = sent and os.path.exists(sent) and os.path.samefile(sent, clusters.ROOT)
    begin = clusters.begin(config, run_dir, "launch.py" if is_code else clusters.ROOT / "launch.py")
    if takes_gpus(config):
        turn = [config.lab.cluster.python or sys.executable, "-m", "launcher.clusters.turn"]
        turn += [f"--nodes={config.trainer.nnodes}", f"--gpus={gpus_of_node(config)}"]
        begin = f"{shlex.join(turn)} -- {begin}"
    return f"exec {begin}" if sent else f"cd {shlex.quote(str(Path.cwd()))} && exec {begin}"


def submit(runs: list[clusters.Handed]) -> list[str]:
    """Hand each run over; returns lines to show. Raises Mistake if the cluster refuses."""
    lines = []
    for run in runs:
        asked: DictConfig = run.config.lab.cluster
        client = ray_jobs.client(asked.address, same_version=asked.python is None)
        clusters.note(run.run_dir, "ray", None)
        gpus = None if takes_gpus(run.config) else run.config.lab.hw.gpus_per_node
        try:
            job = client.submit_job(
                entrypoint=entrypoint(run.config, run.run_dir),
                runtime_env=environment(run.config),
                entrypoint_num_gpus=gpus,
            )
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            why = " ".join(str(error).split())[:300]
            place = f"{ray_jobs.KEY}={client.get_address()}"
            raise Mistake(f"{place} refuses the job: {why}") from None
        clusters.note(run.run_dir, "ray", job, address=client.get_address())
        logs = f"ray job logs --follow --address {client.get_address()} {job}"
        lines.append(f"job {job}: {near(run.run_dir)}. What it prints: {logs}")
    return [*lines, "How it is: python launch.py status"]


def stop(job: dict) -> str:
    """The command that ends a job."""
    return f"ray job stop --address {job['address']} {job['job']}"


def states(jobs: list[dict]) -> dict[str, str]:
    """Of those of these jobs that have not ended: waiting, running. Raises OSError where a cluster does not answer."""
    found = {}
    for address in dict.fromkeys(job["address"] for job in jobs):
        try:
            all_jobs = ray_jobs.client(address, same_version=False).list_jobs()
        except (Mistake, RuntimeError) as error:
            raise OSError(str(error)) from None
        for job in all_jobs:
            if not job.status.is_terminal():
                waits = job.status.name == "PENDING"
                found[job.submission_id] = "waiting" if waits else "running"
    return found
