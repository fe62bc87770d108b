"""The child process that verl runs in: its command, its environment, and its run from start to end."""

import os
import sys
from pathlib import Path

from omegaconf import DictConfig

from launcher import supervisor
from launcher.alerts import Watch
from launcher.checkpoints import tracked
from launcher.progress import Progress
from preflight import names
from preflight.facts import is_of_a_sweep, is_rl
from preflight.memory.forecast import total_steps

ROOT = Path(__file__).resolve().parent.parent


def makes_ray(config: DictConfig) -> bool:
    """Whether the child process starts a Ray of its own: it needs one, and no address of one is given."""
    return "ray_kwargs" in config and not config.ray_kwargs.ray_init.address


def environment(config: DictConfig) -> dict[str, str]:
    """Of the child process: this one's, and what `lab.env` adds."""
    env = os.environ | {name: str(value) for name, value in config.lab.env.items()}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    if "ray_kwargs" in config:
        env.pop("RAY_ADDRESS", None)  # it is the default of the config's address, and that counts
    return env


def command(config: DictConfig, run_dir: Path, folder: str, python: str | None) -> list[str]:
    """verl's own entry point on resolved.yaml; only what belongs to this one start is added.

    Args:
        config: resolved.
        run_dir: of the run, absolute.
        folder: a private one for Ray.
        python: the command that stands for `python` in Ray's workers; None: Ray's own choice.
    """
    entry = [config.lab.trainer.entry, "--config-path", str(run_dir), "--config-name", "resolved"]
    entry += [
        f"hydra.run.dir={names.quoted(run_dir)}",
        "hydra.output_subdir=null",
        "hydra/job_logging=stdout",
    ]
    if not is_rl(config):
        workers = f"--nproc_per_node={config.lab.hw.gpus_per_node}"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", workers]
        return [*torchrun, "-m", *entry]
    if makes_ray(config):
        entry += [f"++ray_kwargs.ray_init._temp_dir={names.quoted(folder)}"]
    if python:
        entry += [f"++ray_kwargs.ray_init.runtime_env.py_executable={names.quoted(python)}"]
    return [sys.executable, "-m", *entry]


def all_made(config: DictConfig) -> bool:
    """Whether a run of SFT and its like has made its steps: verl's trainer would make one more, with each start."""
    steps, folder = config.trainer.total_training_steps, Path(config.trainer.default_local_dir)
    if is_rl(config) or not steps or config.trainer.resume_mode != "auto":
        return False
    return (tracked(folder) or 0) >= steps


def run(
    config: DictConfig,
    run_dir: Path,
    memory: supervisor.Memory | None = None,
    watch: Watch | None = None,
) -> int:
    """Run verl on RUN/resolved.yaml, with a line a step on the screen; returns the exit status.

    memory: gets what the run's processes take. watch: gets the metrics.
    """
    if all_made(config):
        print(
            f"all {config.trainer.total_training_steps} steps are made: trainer.total_training_steps=N makes more"
        )
        return 0
    lab = config.lab
    shown = lab.trainer.kind, total_steps(config), lab.keep_best, lab.show_samples, watch
    return supervisor.run(
        lambda folder, python: command(config, run_dir, folder, python),
        run_dir,
        environment(config),
        Progress(run_dir, *shown),
        lab.stall_timeout_s,
        fork=lab.hw.prefork and makes_ray(config),
        memory=memory,
        others_follow=is_of_a_sweep(),
    )
