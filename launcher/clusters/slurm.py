"""cluster=slurm: a script for sbatch, in the run's folder; of a sweep one array job, in the sweep's."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import DictConfig

from launcher import clusters, folders
from preflight import nodes
from preflight.facts import is_rl
from preflight.mistakes import Mistake, near

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "job.sbatch.jinja"
STOP = "scancel"
TIMEOUT_S = 60
WAITING = "PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED"


def options(config: DictConfig, output: Path, count: int | None) -> list[str]:
    """Of sbatch.

    Args:
        output: the folder of what the jobs print.
        count: of an array's jobs; None: no array.
    """
    slurm, hw = config.lab.cluster, config.lab.hw
    name = "slurm-%j.txt" if count is None else "slurm-%A_%a.txt"
    found: list[tuple[str, Any]] = [
        ("job-name", re.sub(r"\s+", "-", config.lab.name)),
        ("output", f"{str(output).replace('%', '%%')}/{name}"),
        ("open-mode", "append"),  # a start after a requeue goes on in it
        ("nodes", hw.nodes),
        ("ntasks-per-node", 1),
        ("gpus-per-node", hw.gpus_per_node if hw.device != "cpu" else None),
        ("cpus-per-task", slurm.cpus),
        ("mem", f"{slurm.memory_gib}G" if slurm.memory_gib else None),
        ("time", slurm.time_min),
        ("partition", slurm.partition),
        ("account", slurm.account),
        ("qos", slurm.qos),
        ("signal", f"B:USR1@{slurm.signal_s}"),
        ("array", f"0-{count - 1}" if count is not None else None),
    ]
    words = [f"--{key}={value}" for key, value in found if value is not None]
    return [*words, "--requeue" if slurm.requeue else "--no-requeue", *slurm.options]


def container_words(config: DictConfig, mounts: Iterable[Path]) -> tuple[list[str], list[str]]:
    """What stands before a command that runs in the container: options of srun, and words of the command itself."""
    slurm = config.lab.cluster
    if not slurm.container:
        return [], []
    places = list(dict.fromkeys([*map(str, mounts), *slurm.mounts]))
    if slurm.container_tool == "apptainer":
        gpus = [] if config.lab.hw.device == "cpu" else ["--nv"]
        binds = [f"--bind={place}" for place in places]
        return [], ["apptainer", "exec", *gpus, *binds, slurm.container]
    pairs = ",".join(f"{place}:{place}" for place in places)
    return [f"--container-image={slurm.container}", f"--container-mounts={pairs}"], []


def script(runs: Sequence[clusters.Handed], place: Path, is_array: bool) -> str:
    """The text of a script for runs that ask for the same.

    Args:
        place: the folder that it lies in, and of what the jobs print.
    """
    config = runs[0].config
    own = [folders.of_checkpoints(run.config, run.run_dir) for run in runs]
    checkpoints = [folder for folder in own if folder]
    srun, before = container_words(config, [ROOT, Path.cwd(), place, Path("/tmp"), *checkpoints])
    files = [name for run in runs for name in nodes.needed(run.config)]
    step = ["srun", "--overlap", "--nodes=1", "--ntasks=1", *srun] if srun else []
    words = []
    if config.lab.hw.nodes > 1 and is_rl(config):
        hw = config.lab.hw
        words = [f"--num-gpus={hw.gpus_per_node}"]
        words += [f"--num-cpus={hw.ray_cpus}"] if hw.ray_cpus else []
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    return environment.get_template(TEMPLATE).render(
        options=options(config, place, len(runs) if is_array else None),
        folders=[run.run_dir for run in runs],
        cwd=Path.cwd(),
        setup=config.lab.cluster.setup,
        inside=[shlex.quote(word) for word in [*step, *before]],
        inside_ray=[shlex.quote(word) for word in before],
        container_words="".join(f" {shlex.quote(word)}" for word in srun),
        ray_words="".join(f" {word}" for word in words),
        python=config.lab.cluster.python or sys.executable,
        launch=ROOT / "launch.py",
        nodes=config.lab.hw.nodes,
        requeue=config.lab.cluster.requeue,
        gpus=config.lab.hw.gpus_per_node,
        needed=[shlex.quote(name) for name in dict.fromkeys(files)],
        checkpoints=[shlex.quote(str(folder)) for folder in checkpoints],
    )


def alike(runs: Iterable[clusters.Handed]) -> list[list[clusters.Handed]]:
    """The runs in groups that ask for the same: the jobs of an array differ in nothing but their number."""
    found: dict[str, list[clusters.Handed]] = {}
    for run in runs:
        hw = run.config.lab.hw
        asked = str((hw.nodes, hw.gpus_per_node, hw.device, hw.ray_cpus, run.config.lab.cluster))
        found.setdefault(asked, []).append(run)
    return list(found.values())


def submit(runs: list[clusters.Handed]) -> list[str]:
    """Write the scripts and submit them where sbatch is; returns lines to show. Raises Mistake if sbatch refuses."""
    lines: list[str] = []
    for number, group in enumerate(alike(runs), start=1):
        is_array = group[0].sweep is not None
        place = group[0].sweep or group[0].run_dir
        if any(sign in str(run.run_dir) + str(place) for run in group for sign in "\n\\"):
            raise Mistake(
                f"{place}: a folder's name with a backslash or a line break can't be told to sbatch."
            )
        file = place / ("job.sbatch" if number == 1 else f"job-{number}.sbatch")
        file.write_text(script(group, place, is_array))
        for run in group:
            clusters.note(run.run_dir, "slurm", None)
        job = None
        if shutil.which("sbatch"):
            job = asked(["sbatch", "--parsable", str(file)]).strip().partition(";")[0]
            for index, run in enumerate(group):
                clusters.note(run.run_dir, "slurm", f"{job}_{index}" if is_array else job)
        lines.append(said(file, job, len(group) if is_array else None))
    return lines


def said(file: Path, job: str | None, count: int | None) -> str:
    """What the user reads of a script."""
    if job is None:
        return (
            f"there is no sbatch here. On a machine that has it: sbatch {shlex.quote(near(file))}"
        )
    what = f"job {job}" if count is None else f"array job {job}, {count} runs"
    return f"{what}, by {near(file)}. How it is: python launch.py status. To stop it: {STOP} {job}"


def asked(command: list[str]) -> str:
    """What a command of Slurm prints. Raises Mistake with what it says if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Mistake(
            f"{command[0]} has not answered for {TIMEOUT_S} s: is slurmctld up?"
        ) from None
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise Mistake(f"{shlex.join(command)}: {words}")
    return done.stdout


def states(jobs: list[dict]) -> dict[str, str]:
    """Of those of these jobs that have not ended: waiting, running. Raises OSError where there is no squeue."""
    if not shutil.which("squeue"):
        raise FileNotFoundError("squeue")
    try:  # all of the user's: squeue fails where one of the named jobs is forgotten
        text = asked(["squeue", "--noheader", "--array", "--me", "--format=%i|%T|%r"])
    except Mistake as mistake:
        raise OSError(str(mistake)) from None
    found = {}
    for line in text.splitlines():
        job, state, reason = line.split("|", 2)
        waits = f"waiting ({reason})" if reason not in ("None", "") else "waiting"
        found[job] = waits if state in WAITING else state.lower()
    return found
