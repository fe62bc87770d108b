"""Going on with a run: with the config that it has, and not with what conf/ says today.

A start that goes on (`resume=RUN`) composes today's conf/ twice, with the overrides that the run has and with those
of this command line besides. Where the two differ, this command line counts; everywhere else RUN/resolved.yaml does.
What conf/, the data or the machine would make different today is printed, and not done.

RUN/resolved.yaml and its like are the newest start's; those of start N before it lie in RUN/attempts/N.
"""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from launcher import checkpoints
from launcher.metrics import read_metrics
from preflight import names, reward_keys
from preflight.checks.trainer import loaded
from preflight.facts import is_driver
from preflight.mistakes import Mistake, near

RESOLVED = "resolved.yaml"
OVERRIDES, COMPOSED = ".hydra/overrides.yaml", ".hydra/config.yaml"
CHANGES = "changes.txt"
KEPT = (RESOLVED, OVERRIDES, COMPOSED, CHANGES, "training_config.json", "plan.txt")  # of each start
ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("plugins", "rewards", "algos", "agents")  # whose modules a config names
# What the machine and the folder say at this start, whatever they said at the first one.
OF_THIS_START = ("lab.run_dir", "ray_kwargs.ray_init.address")
OF_THE_CODE = "lab.trainer"  # what the trainer is: today's code knows it best
SHOWN = 8  # changes on the screen; all are in CHANGES
PUT_BACK = "put a whole one there (attempts/N/ has those of earlier starts)"
NONE = object()  # no such key


def arguments(argv: list[str]) -> list[str]:
    """The checked command line for Hydra, which writes nothing down: `write_down` and `keep` do.

    Hydra would write before anybody knows whether the folder is another run's, or the run is refused.
    """
    return [*names.check_argv(argv), "hydra.output_subdir=null"]


def past(run_dir: Path, asked: Path | None) -> "Past | None":
    """The run that a start in this folder goes on with; None for a new run.

    Args:
        run_dir: where the start runs, however its command line or a YAML file names it.
        asked: of `resume=RUN`; None without.

    Raises Mistake where another run is there, or what is written of the run can't be read.
    """
    if not (run_dir / RESOLVED).exists():
        return None
    if asked is None or not os.path.samefile(asked, run_dir):
        there = near(run_dir)
        raise Mistake(f"{there} holds a run already: `{shlex.quote(f'resume={there}')}` goes on with it, another folder"
                      " keeps it as it is.")  # fmt: skip
    return Past(run_dir)


def write_down(run_dir: Path, composed: DictConfig) -> None:
    """What a new run is composed of, as Hydra itself writes it.

    Args:
        composed: as it came from Hydra, with its interpolations.
    """
    (run_dir / OVERRIDES).parent.mkdir(exist_ok=True)
    OmegaConf.save(composed, run_dir / COMPOSED)
    OmegaConf.save(HydraConfig.instance().cfg, run_dir / ".hydra/hydra.yaml")
    OmegaConf.save(HydraConfig.get().overrides.task, run_dir / OVERRIDES)


class Past:
    """What a run was before this start.

    Args:
        run_dir: its folder, as it is before anything of this start is written there.
    """

    def __init__(self, run_dir: Path):
        self.run_dir = run_dir
        self.saved = reward_keys.short(yaml.safe_load((run_dir / OVERRIDES).read_text()))
        self.resolved = readable(run_dir / RESOLVED, config_in, PUT_BACK)
        reward_keys.gather(self.resolved, self.saved)  # of a run from before lab.reward
        OmegaConf.resolve(self.resolved)
        record = run_dir / "run.json"
        attempts = []
        if record.exists():
            attempts = readable(
                record, attempts_in, "remove it, and the run goes on without its earlier starts"
            )
        self.starts = max(1, len(attempts))
        self.chosen: list[str] = attempts[-1].get("chosen", []) if attempts else []
        self.overrides: list[str] = []  # of this start, once `go_on` has seen them
        self.composed: dict = {}
        self.changes: list[str] = []
        self.begin = Begin("")

    def go_on(self, config: DictConfig) -> DictConfig:
        """The config of this start: the run's own, with what this command line sets.

        Args:
            config: composed by Hydra from the run's overrides and this command line's.

        Raises Mistake for what can't be set any more.
        """
        hydra = HydraConfig.get()
        self.overrides = list(hydra.overrides.task)
        new = {names.split(word)[0]: word for word in self.overrides if word not in self.saved}
        if new.get("lab.plan") == "lab.plan=auto":
            raise Mistake(
                "lab.plan=auto chooses for a new run; a run that goes on keeps its sizes."
            )
        before = compose(hydra.job.config_name, overrides=list(filter(is_there, self.saved)))
        reward_keys.gather(before, self.saved)
        now = config.copy()
        for made in (before, now):
            OmegaConf.set_struct(made, False)
        given = {names.split(word)[0] for word in self.overrides}
        for key, value in map(names.split, self.chosen):
            for made in (before, now) if key not in given else ():
                OmegaConf.update(made, key, yaml.safe_load(value))
        # A key that is set to what conf/ says today is set all the same. So the run's own value stands on the
        # other side, and all that follows from the key differs, too.
        for key in [*OF_THIS_START, *(key for key in new if "." in key)]:
            value = OmegaConf.select(self.resolved, key, default=NONE)
            if value is not NONE:
                OmegaConf.update(before, key, value, merge=False)
        written = readable(self.run_dir / COMPOSED, config_in, PUT_BACK)
        reward_keys.gather(written, self.saved)
        self.composed = together(plain(written), plain(before), plain(now))
        for made in (before, now):
            OmegaConf.resolve(made)
        old, today = plain(self.resolved), plain(before)
        unused = before.lab.trainer.unused  # which resolved.yaml does not have
        self.changes = differences(old, {k: v for k, v in today.items() if k not in unused})
        merged = OmegaConf.create(together(old, today, plain(now)))
        if merged.lab.plan == "auto":
            merged.lab.plan = "check"  # it has chosen
        OmegaConf.set_struct(merged, True)
        self.begin = begin(merged, self.run_dir)
        return merged

    def keep(self) -> None:
        """Put the config of the start before away, and write down what this one was composed of."""
        place = self.run_dir / f"attempts/{self.starts}"
        for name in KEPT:
            if (self.run_dir / name).exists():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.run_dir / name, place / name)
        (self.run_dir / CHANGES).unlink(missing_ok=True)
        OmegaConf.save(OmegaConf.create(self.overrides), self.run_dir / OVERRIDES)
        OmegaConf.save(OmegaConf.create(self.composed), self.run_dir / COMPOSED)
        if self.changes:
            (self.run_dir / CHANGES).write_text("\n".join(self.changes) + "\n")
        if self.begin.step is not None:
            checkpoints.track(self.begin.folder, self.begin.step)

    def report(self) -> str:
        """What the user reads of the checkpoint and the changes, in whole lines; nothing if there is nothing to say."""
        if not self.changes:
            return self.begin.text
        lines = ["conf/, the data or this machine have changed since this run began. It keeps its values"
                 " (KEY=VALUE changes one):"]  # fmt: skip
        lines += [f"  {change}" for change in self.changes[:SHOWN]]
        if len(self.changes) > SHOWN:
            rest, file = len(self.changes) - SHOWN, near(self.run_dir / CHANGES)
            lines += [f"  and {rest} more, in {file}"]
        return self.begin.text + "\n".join(lines) + "\n"


class Begin(NamedTuple):
    """Where a run goes on: what the user reads of it, and the step that the tracker must name, if it doesn't."""

    text: str
    folder: Path = Path()
    step: int | None = None


def begin(config: DictConfig, run_dir: Path) -> Begin:
    """The last whole checkpoint of a run. verl takes the one that its tracker names, or begins again with step 1.

    Raises Mistake if a run that has saved checkpoints has no whole one any more.
    """
    if config.trainer.resume_mode != "auto" or config.trainer.resume_from_path or is_driver(config):
        return Begin("")
    folder = Path(config.trainer.default_local_dir)
    tracker = folder / Path(checkpoints.TRACKER).name
    named, there = checkpoints.tracked(folder), checkpoints.steps_in(folder)
    steps = sorted(
        {named, *(step for step in there if step < named)} if named is not None else there
    )
    broken, what = {}, loaded(config)
    while steps and (why := checkpoints.fault(folder / f"global_step_{steps[-1]}", *what)):
        broken[steps.pop()] = why
    lines = [
        f"{near(folder / f'global_step_{step}')} is no whole checkpoint: {why}"
        for step, why in broken.items()
    ]
    if named is None and tracker.exists():
        lines.insert(0, f"{near(tracker)} names no step")
    if steps:
        same_workers(config, folder / f"global_step_{steps[-1]}", what[0])
        if named == steps[-1]:
            return Begin("")
        lines = lines or [f"{near(tracker)} is missing"]
        text = "\n".join(
            [*lines, f"The run goes on from step {steps[-1]}, its last whole checkpoint."]
        )
        return Begin(text + "\n", folder, steps[-1])
    if tracker.exists():
        raise Mistake("\n".join([*lines[:SHOWN], "There is no whole checkpoint to go on from: put one back, or remove"
                                 f" {near(folder)} and the run begins again with step 1."]))  # fmt: skip
    if max(read_metrics(run_dir / "metrics.jsonl"), default=0) > 0 or lines:
        lines.append(f"{near(run_dir)} has no checkpoint yet: the run begins again with step 1.")
    return Begin("".join(f"{line}\n" for line in lines))


def same_workers(config: DictConfig, step: Path, parts: Iterable[str]) -> None:
    """Raises Mistake if a checkpoint is of another number of workers: FSDP's files are parts, one a worker."""
    now = config.trainer.nnodes * config.trainer.n_gpus_per_node
    for part in parts:
        if (then := checkpoints.worlds(step / part)) and now not in then:
            raise Mistake(f"{near(step)} is of {max(then)} workers, and this start has {now}: go on with as many, or"
                          f" begin a new run with its model: lab.model.path={near(step)}")  # fmt: skip


def readable(file: Path, read: Callable[[Path], Any], cure: str) -> Any:
    """What is in a file of a run. Raises Mistake if a part of it is missing, or it is something else."""
    try:
        return read(file)
    except (ValueError, LookupError, TypeError, OSError, yaml.YAMLError):
        pass
    raise Mistake(f"{near(file)} is damaged (was the disk full?): {cure}.")


def config_in(file: Path) -> DictConfig:
    """A config with all that a trainer needs. Raises LookupError for a part of one."""
    config = OmegaConf.load(file)
    _ = config["lab"], config["trainer"]
    return config


def attempts_in(record: Path) -> list[dict]:
    """The starts that a run's run.json has."""
    return [dict(attempt) for attempt in json.loads(record.read_text())["attempts"]]


def plain(config: DictConfig) -> dict:
    """As a dict, interpolations as they are written."""
    return OmegaConf.to_container(config)


def is_there(override: str) -> bool:
    """Whether conf/ still has the file that an override chooses, if it chooses one."""
    group, name = names.split(override)
    return name in names.groups().get(group, [name])


def together(old: Any, before: Any, now: Any, key: str = "") -> Any:
    """The value of a key: `old`, but `now` where `now` and `before` differ, or `old` can't be used any more."""
    if key == OF_THE_CODE or old is NONE or is_gone(old) or is_formula(old):
        return now
    if isinstance(old, dict) and isinstance(before, dict) and isinstance(now, dict):
        return {
            k: together(old.get(k, NONE), before.get(k, NONE), v, below(key, k))
            for k, v in now.items()
        }
    return old if before == now else now


def differences(old: Any, today: Any, key: str = "") -> list[str]:
    """A line for each value that is another one today; the keys of lab before those of verl."""
    if key == OF_THE_CODE or old == today or is_gone(old):
        return []
    if isinstance(old, dict) and isinstance(today, dict):
        keys = sorted(dict.fromkeys([*old, *today]), key=lambda k: not key and k != "lab")
        values = {k: (old.get(k, NONE), today.get(k, NONE)) for k in keys}
        return [line for k, two in values.items() for line in differences(*two, below(key, k))]
    if today is NONE:  # of lab nothing is lost by that: verl's keys have its values
        return [] if key.startswith("lab.") else [f"{key}={shown(old)} is no key any more"]
    if old is NONE:
        return [f"{key}={shown(today)} is new"] if today != {} else []
    return [f"{key}={shown(old)}, today {shown(today)}"]


def below(key: str, name: str) -> str:
    """The key of `name` in the node at `key`."""
    return f"{key}.{name}" if key else name


def shown(value: Any) -> str:
    """A value, as it is written on a command line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def is_formula(value: Any) -> bool:
    """Whether it is an interpolation, which may name keys that today's conf/ calls otherwise."""
    return isinstance(value, str) and "${" in value


def is_gone(value: Any) -> bool:
    """Whether it names a module of this project that is not there any more: it was renamed, or moved."""
    if not isinstance(value, str):
        return False
    match = re.fullmatch(rf"(?:pkg://)?(({'|'.join(ROOMS)})(\.\w+)+)", value)
    if not match:
        return False
    place, *parts = match[1].split(".")
    folder = ROOT / place
    for part in parts:
        if (folder / f"{part}.py").is_file():
            return False
        folder = folder / part
        if not folder.is_dir():
            return True
    return False
