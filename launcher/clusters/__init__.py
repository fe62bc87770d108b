"""Clusters: a start that hands its run to one checks it and writes it down, and the cluster's job begins it.

One module an engine, called like its option of `cluster=`, with

    submit(runs) -> list[str]      write what the engine takes, hand it over where it can be reached; lines to show
    states(jobs) -> dict[str, str] of jobs that have not ended: waiting, running; raises OSError where nobody answers

The job runs `python launch.py resume=RUN`, which begins a run that has not begun and goes on with one that has: so a
job that the cluster starts again needs no other command. RUN/job.json says which job has the run.
"""

import datetime
import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from omegaconf import DictConfig

from launcher import sweep
from launcher.results import write_json
from preflight import cluster
from preflight.mistakes import Mistake, near

RECORD = "job.json"


class Handed(NamedTuple):
    """A run that a cluster's job will begin: its config, resolved, its folder, and its sweep's if it is of one."""

    config: DictConfig
    run_dir: Path
    sweep: Path | None = None


handed: list[Handed] = []  # by this start, and not yet submitted


def module(name: str) -> ModuleType:
    """Of an engine."""
    return importlib.import_module(f"launcher.clusters.{name}")


def hand_over(config: DictConfig, run_dir: Path) -> None:
    """Leave a run that is written down to the cluster; `submit`, at the end of the start, does it for all."""
    handed.append(Handed(config, run_dir, sweep.folder_of_job()))


def submit() -> str:
    """Submit what this start has handed over; returns what the user reads. Raises Mistake if it is refused."""
    lines: list[str] = []
    engines = dict.fromkeys(cluster.engine(run.config) for run in handed)
    for name in engines:
        lines += module(name).submit([run for run in handed if cluster.engine(run.config) == name])
    return "\n".join(lines)


def note(run_dir: Path, engine: str, job: str | None, **more: Any) -> None:
    """Write down which job has the run; None: it lies there for a person to submit."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    write_json(run_dir / RECORD, {"cluster": engine, "job": job, "submitted": now, **more})


def record(run_dir: Path) -> dict[str, Any]:
    """What is written of a run's job; {} for a run without one."""
    try:
        return dict(json.loads((run_dir / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def state(run_dir: Path) -> str | None:
    """Of a run's job: waiting, running; None if it has ended, there is none, or nobody knows."""
    job = record(run_dir)
    if not job.get("job"):
        return None
    try:
        return module(job["cluster"]).states([job]).get(job["job"])
    except (OSError, ImportError, LookupError):
        return None


def refuse_second(run_dir: Path) -> None:
    """Raises Mistake if a job of a cluster has this run, and this start is not that job's."""
    if not os.environ.get(cluster.JOB) and (now := state(run_dir)):
        job = record(run_dir)
        raise Mistake(f"{near(run_dir)} belongs to job {job['job']} of {job['cluster']}, which is {now}: wait for it,"
                      f" or stop it ({module(job['cluster']).STOP} {job['job']}).")  # fmt: skip
