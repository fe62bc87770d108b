"""Stages: runs of launch.py inside a run, for a driver that needs several one after another.

A driver is an entry point (`lab.trainer.entry`) that launch.py starts as it starts verl's; algos/self_play.py
is one. A stage is an ordinary run with a folder of its own, FOLDER, and a config that differs from its
algorithm's by FOLDER/../stage/NAME.yaml (NAME_2.yaml, ...: of a start that goes on with others). It can be repeated by
hand:

    python launch.py --config-dir=RUN/round_1 algo=dpo reward=none +stage=dpo hydra.run.dir=SOMEWHERE
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from launcher.checkpoints import TRACKER, latest_model
from launcher.metrics import read_metrics
from launcher.progress import MESSAGE, NESTED
from launcher.results import ERROR, STAGE, attempts
from preflight import names, reward_keys

LAUNCH = Path(__file__).resolve().parent.parent / "launch.py"
OWN = ("name", "run_dir", "trainer")  # keys of lab that each stage has itself


class StageError(Exception):
    """The run can't go on: a stage failed, or has nothing to do. Its text is the message for the user."""


def finished(folder: Path) -> bool:
    """Whether the stage in `folder` has ended well."""
    return any(attempt["exit"] == 0 for attempt in attempts(folder))


def seconds(folder: Path) -> float:
    """How long the stage took, all its starts together."""
    spans = [
        datetime.fromisoformat(attempt["end"]) - datetime.fromisoformat(attempt["start"])
        for attempt in attempts(folder)
        if attempt["end"]
    ]
    return sum(span.total_seconds() for span in spans)


class Records:
    """The metrics of the driver's own run: each step is logged once, also over several starts.

    Args:
        config: of the run, resolved: `lab.run_dir`, and verl's loggers in `trainer`.
    """

    def __init__(self, config: DictConfig):
        self.config = config
        self.logger: Any = None  # made at the first metrics

    def steps(self) -> dict[int, dict[str, float]]:
        """What is there, by step."""
        return read_metrics(Path(self.config.lab.run_dir) / "metrics.jsonl")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Give a step's metrics to verl's loggers; none at all are no record."""
        if not metrics or step in self.steps():
            return
        if self.logger is None:
            from verl.utils.tracking import Tracking  # takes seconds: it imports torch

            config = OmegaConf.to_container(self.config)
            trainer = config["trainer"]
            names = trainer["project_name"], trainer["experiment_name"]
            self.logger = Tracking(*names, trainer["logger"], config)
        self.logger.log(metrics, step)


def shared(config: DictConfig) -> dict:
    """What a stage of another algorithm has of a run's (unresolved) config: lab.*."""
    return {"lab": {k: v for k, v in config.lab.items_ex(resolve=False) if k not in OWN}}


def composed(run_dir: Path) -> DictConfig:
    """The config of a run as Hydra composed it, with its interpolations."""
    config = OmegaConf.load(run_dir / ".hydra/config.yaml")
    reward_keys.gather(config, yaml.safe_load((run_dir / ".hydra/overrides.yaml").read_text()))
    return config


def message(text: str) -> None:
    """Print a line into the run's log that is shown on the screen as well."""
    print(f"{MESSAGE}{text}", flush=True)


def run(folder: Path, algo: str, changes: DictConfig) -> None:
    """Run a stage to its end, from its last checkpoint if it was stopped and has one.

    Args:
        folder: of the stage; what a start without a checkpoint left there is removed.
        algo: whose config is changed.
        changes: the differences; its interpolations are resolved by the stage.

    Raises StageError, with the stage's first error, if it does not end well.
    """
    goes_on = (folder / TRACKER).exists()
    stage = f"+stage={written(folder, changes, goes_on)}"
    if goes_on:
        where = [f"resume={folder}", stage]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        # reward=none: its reward and the options are all in `changes`, without those of the default one.
        where = [f"algo={algo}", "reward=none", stage, f"hydra.run.dir={names.quoted(folder)}"]
    process = subprocess.Popen(
        [sys.executable, LAUNCH, f"--config-dir={folder.parent}", *where],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # a grace that is shorter than that of the run that this one is a stage of
        env=os.environ | {"LAB_GRACE_S": "5", STAGE: "1"},
    )  # fmt: skip
    lines = []
    try:
        for line in process.stdout:
            print(NESTED, line, end="", flush=True)
            lines.append(line.strip())
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # it ends all that it has started
        process.wait()
        raise
    if code:
        why = next((line for line in lines if line.startswith("error:") or ERROR.match(line)), "")
        raise StageError(f"{folder} ended with exit status {code}; see its log.txt. {why}")


def written(folder: Path, changes: DictConfig, goes_on: bool) -> str:
    """Write the changes of a stage down; returns the name of their file.

    What a start before had stays for one that goes on: the difference is what is set now, and counts
    (launcher/resume.py).
    """
    text = "# @package _global_\n" + OmegaConf.to_yaml(changes)
    others = (f"{folder.name}_{number}" for number in itertools.count(2))
    for name in itertools.chain([folder.name], others):
        file = folder.parent / f"stage/{name}.yaml"
        if not (goes_on and file.exists()) or file.read_text() == text:
            break
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return name


def publish(stage: Path, run_dir: Path, number: int, keep: int | None) -> None:
    """Make a stage's model the run's checkpoint `number`, and remove what nobody needs any more.

    The checkpoint is a link into the stage, which keeps the model alone; of the run's checkpoints
    the last `keep` stay (None: all).
    """
    step = latest_model(stage).parent
    for part in [*step.parent.glob("global_step_*"), *step.iterdir()]:
        if part not in (step, step / "huggingface"):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    folder = run_dir / "checkpoints"
    folder.mkdir(exist_ok=True)
    link = folder / f"global_step_{number}"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(step, folder))
    (run_dir / TRACKER).write_text(str(number))
    for old in folder.glob("global_step_*"):
        if keep and int(old.name.removeprefix("global_step_")) <= number - max(keep, 1):
            # all that the stage has saved; a run that was cut here finds some of it, or nothing
            shutil.rmtree(old.resolve().parent, ignore_errors=True)
            old.unlink()
