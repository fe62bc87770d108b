"""Clusters: a start that hands its run to one checks it and writes it down, and the cluster's job begins it.

One module an engine, called like its option of `cluster=`, with

    submit(runs) -> list[str]      write what the engine takes, hand it over where it can be reached; lines to show
    states(jobs) -> dict[str, str] of jobs that have not ended: waiting, running; raises OSError where nobody answers
    stop(job) -> str               the command that ends a job

`states` and `stop` get what RUN/job.json has of a job.

The job runs `python launch.py resume=RUN`, which begins a run that has not begun and goes on with one that has: so a
job that the cluster starts again needs no other command. RUN/job.json says which job has the run.
"""

import datetime
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import DictConfig

from launcher import sweep
from launcher.results import write_json
from preflight import cluster, nodes
from preflight.mistakes import Mistake, near
from preflight.names import ROOT

RECORD = "job.json"
LONGEST = 40  # of a name: 47 characters may a RayJob's have, with those that Kubernetes adds
NODES_S = 300  # until all nodes of a Ray that a job starts are there
TIMEOUT_S = 60  # of an engine's command


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


def begin(config: DictConfig, run_dir: Path, launch: str | Path = ROOT / "launch.py") -> str:
    """The command of a job, for a shell: it begins the run, or goes on with it."""
    words = [config.lab.cluster.python or sys.executable, str(launch), f"resume={run_dir}"]
    return shlex.join(words)


def ray_words(config: DictConfig) -> list[str]:
    """Of `ray start`: what a node counts. Logical ones on a CPU; verl asks for a CPU a process."""
    hw = config.lab.hw
    return [
        f"--num-gpus={hw.gpus_per_node}",
        *([f"--num-cpus={hw.ray_cpus}"] if hw.ray_cpus else []),
    ]


def look(python: str, address: str, *configs: DictConfig) -> str:
    """The command that waits for the nodes of a Ray that a job has started; it fails where one doesn't see a file.

    Args:
        python: of the nodes, as a shell reads it. So is the address.
        configs: of the runs, which want the same nodes.
    """
    hw = configs[0].lab.hw
    words = f"--nodes {hw.nodes} --gpus {hw.gpus_per_node} --wait {NODES_S} --files"
    files = dict.fromkeys(file for config in configs for file in nodes.needed(config))
    return " ".join([python, "-m preflight.nodes", address, words, *map(shlex.quote, files)])


def render(template: str, **values: Any) -> str:
    """The text of one of the templates that lie here. Its filter sh quotes for a shell."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    return environment.get_template(template).render(**values)


def slug(config: DictConfig) -> str:
    """The run's name in lower case, digits and hyphens, as Kubernetes and clouds want it."""
    words = re.sub(r"[^a-z0-9]+", "-", config.lab.name.lower()).strip("-")
    return (words if words[:1].isalpha() else f"run-{words}")[:LONGEST].rstrip("-")


def asked(command: list[str]) -> str:
    """What a command of an engine prints. Raises Mistake with what it says if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Mistake(
            f"{command[0]} has not answered for {TIMEOUT_S} s: is its server up?"
        ) from None
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise Mistake(f"{shlex.join(command)}: {words}")
    return done.stdout


def answered(command: list[str]) -> str:
    """The same, of a question: raises OSError where nobody can answer it."""
    try:
        return asked(command)
    except Mistake as mistake:
        raise OSError(str(mistake)) from None


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
                      f" or stop it ({module(job['cluster']).stop(job)}).")  # fmt: skip
