"""cluster=slurm: a script for sbatch, in the run's folder; of a sweep one array job, in the sweep's."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from launcher import clusters, folders
from preflight.facts import is_rl
from preflight.mistakes import Mistake, near

TEMPLATE = "job.sbatch.jinja"
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
    srun, before = container_words(
        config, [clusters.ROOT, Path.cwd(), place, Path("/tmp"), *checkpoints]
    )
    step = ["srun", "--overlap", "--nodes=1", "--ntasks=1", *srun] if srun else []
    words = []
    if config.lab.hw.nodes > 1 and is_rl(config):
        words = clusters.ray_words(config)
    return clusters.render(
        TEMPLATE,
        options=options(config, place, len(runs) if is_array else None),
        folders=[run.run_dir for run in runs],
        cwd=Path.cwd(),
        setup=config.lab.cluster.setup,
        inside=[shlex.quote(word) for word in [*step, *before]],
        inside_ray=[shlex.quote(word) for word in before],
        container_words="".join(f" {shlex.quote(word)}" for word in srun),
        ray_words="".join(f" {word}" for word in words),
        python=config.lab.cluster.python or sys.executable,
        launch=clusters.ROOT / "launch.py",
        nodes=config.lab.hw.nodes,
        requeue=config.lab.cluster.requeue,
        look=clusters.look('"${python[@]}"', '"$here:$port"', *[run.config for run in runs]),
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
            job = clusters.asked(["sbatch", "--parsable", str(file)]).strip().partition(";")[0]
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
    return f"{what}, by {near(file)}. How it is: python launch.py status. To stop it: {stop({'job': job})}"


def stop(job: dict) -> str:
    """The command that ends a job."""
    return f"scancel {job['job']}"


def states(jobs: list[dict]) -> dict[str, str]:
    """Of those of these jobs that have not ended: waiting, running. Raises OSError where there is no squeue."""
    # all of the user's: squeue fails where one of the named jobs is forgotten
    text = clusters.answered(["squeue", "--noheader", "--array", "--me", "--format=%i|%T|%r"])
    found = {}
    for line in text.splitlines():
        job, state, reason = line.split("|", 2)
        waits = f"waiting ({reason})" if reason not in ("None", "") else "waiting"
        found[job] = waits if state in WAITING else state.lower()
    return found
