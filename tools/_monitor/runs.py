"""The runs under some folders, followed as their files grow: the folders are the only truth.

Nothing is written. What stands in memory is read from the files, and read anew when they change.
"""

import contextlib
import datetime
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from launcher.alerts import Watch, defaults
from launcher.metrics import parse
from launcher.progress import VALIDATION, named
from launcher.tail import Tail
from tools._monitor.metrics import Metrics

MARKS = ("run.json", "resolved.yaml", "metrics.jsonl")  # a folder that has one is a run's
NOT_RUNS = {
    "checkpoints",
    "rollouts",
    "validation",
    "attempts",
    "best_model",
    "tensorboard",
    "wandb",
}
DEPTH = 6  # folders below the root
TICK_S = 2.0  # from look to look
SCAN_S = 6.0  # new folders are looked for less often
STALL_S = 3600  # lab.stall_timeout_s of a run that doesn't say it
ENDS = {
    0: "done",
    129: "stopped",
    130: "stopped",
    143: "stopped",
}  # by exit status; SIGHUP, Ctrl-C and SIGTERM are no failure
TILES = {  # what the table of runs shows: column → metrics
    "reward": "critic/score/mean|critic/rewards/mean",
    "loss": "train/loss",
    "validation": VALIDATION,
    "KL": "actor/kl_loss|actor/reward_kl_penalty|actor/ppo_kl",
    "entropy": "actor/entropy",
    "length": "response_length/mean",
    "s/step": "timing_s/step",
}


class Gone(Exception):
    """What was asked for is not there (any more)."""


class Run:
    """One run's folder.

    Args:
        folder: absolute, without links.
        name: as the page calls it: the path below the root.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.tail = Tail(folder / "metrics.jsonl")
        self.metrics = Metrics()
        self.version = 0  # rises with every change
        self.record: dict = {}  # run.json
        self.config: dict = {}
        self.moved = folder.stat().st_mtime  # when a file of it last changed
        self.stamps: dict[str, float] = {}
        self.steps: dict[str, list[int]] = {"rollouts": [], "validation": []}
        self.watch = Watch(defaults())  # a run of an older version names no limits

    def file(self, *parts: str) -> Path:
        """A file of the run. Raises Gone if it is not there, or if a link leads out of the folder."""
        file = self.folder.joinpath(*parts)
        if not file.resolve().is_relative_to(self.folder) or not file.is_file():
            raise Gone(f"{self.name} has no {'/'.join(parts)}")
        return file

    def changed(self, name: str) -> bool:
        """Whether a file or folder of the run was changed since the last time."""
        try:
            at = (self.folder / name).stat().st_mtime
        except OSError:
            return False
        self.moved = max(self.moved, at)
        before, self.stamps[name] = self.stamps.get(name), at
        return before != at

    def refresh(self) -> None:
        """Read what is new. Raises OSError if the folder is gone."""
        os.stat(self.folder)
        self.changed("log.txt")
        news = False
        if self.changed("run.json"):
            self.record, news = self.read_record(), True
        if self.changed("training_config.json") or self.changed("resolved.yaml"):
            self.config, news = self.read_config(), True
            if isinstance(limits := self.get("lab.alerts"), dict):
                self.watch.limits = limits
        if self.changed("metrics.jsonl"):
            news |= self.read_metrics()
        for kind in self.steps:
            if self.changed(kind):
                self.steps[kind], news = steps_of(self.folder / kind), True
        self.version += news

    def read_metrics(self) -> bool:
        try:
            self.file("metrics.jsonl")
        except Gone:
            return False
        lines = self.tail.lines()
        if self.tail.begun_anew:
            self.metrics, self.watch = Metrics(), Watch(self.watch.limits)
        for line in lines:
            if record := parse(line):
                self.metrics.add(*record)
                self.watch.step(*record)
        return bool(lines)

    def read_record(self) -> dict:
        """run.json; empty if it is half-written."""
        with contextlib.suppress(Gone, OSError, ValueError):
            found = json.loads(self.file("run.json").read_text())
            if isinstance(found, dict):
                return found
        return {}

    def read_config(self) -> dict:
        """The resolved config; the JSON copy of it is read a hundred times faster."""
        for name in ("training_config.json", "resolved.yaml"):
            with contextlib.suppress(Gone, OSError, ValueError, yaml.YAMLError):
                text = self.file(name).read_text()
                found = json.loads(text) if name.endswith("json") else yaml.load(text, Loader)
                if isinstance(found, dict):
                    return found
        return {}

    def get(self, key: str, default=None):
        """A value of the config by its dotted name."""
        found: object = self.config
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                return default
            found = found[part]
        return default if found is None else found

    @property
    def attempt(self) -> dict:
        attempts = self.record.get("attempts")
        return attempts[-1] if isinstance(attempts, list) and attempts else {}

    def state(self, now: float) -> str:
        """running, done, stopped, failed, no progress, or ended (a quiet folder without run.json)."""
        status = self.attempt.get("exit")
        if self.attempt and status is not None:
            return ENDS.get(status, "failed")
        quiet = now - self.moved > float(self.get("lab.stall_timeout_s", STALL_S))
        if not quiet:
            return "running"
        return "no progress" if self.attempt else "ended"

    def warnings(self, now: float) -> list[dict]:
        """What looks wrong, as the page shows it."""
        made = [
            {
                "rule": alert.rule.title,
                "metric": self.watch.history.named(alert.rule.metrics[0]),
                "value": finite(alert.value),
                "words": alert.words(titled=False),
            }
            for kind, alert in self.watch.found.items()
            if kind in self.watch.holding
        ]
        if self.state(now) == "no progress":
            since = datetime.timedelta(seconds=int(now - self.moved))
            made.insert(0, {"rule": "no progress", "metric": None, "value": None, "words":
                            f"nothing in its folder has changed for {since}, and run.json has no end: it hangs, or was"
                            " killed. Its log.txt says what it did last."})  # fmt: skip
        return made

    def summary(self, now: float) -> dict:
        """A line of the table of runs."""
        names = list(self.metrics.columns)
        figures = {
            tile: self.metrics.last(named(names, pattern)) for tile, pattern in TILES.items()
        }
        total = self.get("trainer.total_training_steps")
        return {
            "id": self.name,
            "version": self.version,
            "state": self.state(now),
            "exit": self.attempt.get("exit"),
            "step": self.metrics.last_step,
            "total": total if isinstance(total, int) else None,
            "start": self.attempt.get("start"),
            "end": self.attempt.get("end"),
            "moved": self.moved,
            "figures": {tile: finite(value) for tile, value in figures.items()},
            "warnings": self.warnings(now),
            "steps": {kind: len(steps) for kind, steps in self.steps.items()},
        }


Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def finite(value: float | None) -> float | None:
    """JSON has no word for what is no number."""
    return value if value is not None and value - value == 0 else None


def steps_of(folder: Path) -> list[int]:
    """The steps that have a file STEP.jsonl."""
    with contextlib.suppress(OSError):
        stems = (name[:-6] for name in os.listdir(folder) if name.endswith(".jsonl"))
        return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())
    return []


def folders(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The runs' folders below a root, itself included; a link is not followed."""
    try:
        entries = list(os.scandir(root))
    except OSError:
        return
    if any(entry.name in MARKS for entry in entries):
        yield root
    for entry in entries:
        with contextlib.suppress(OSError):
            if (
                depth
                and entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(".")
                and entry.name not in NOT_RUNS
            ):
                yield from folders(Path(entry.path), depth - 1)


class Runs:
    """All runs below some roots, looked at again and again by a thread of its own.

    Args:
        roots: name → folder; the name begins the names of its runs ("" for none).
    """

    def __init__(self, roots: dict[str, Path]):
        self.said = [str(root) for root in roots.values()]
        self.roots = {name: root.resolve() for name, root in roots.items()}
        self.runs: dict[str, Run] = {}
        self.lock = threading.RLock()
        self.version = 0
        self.looked = False  # once at least
        self.scanned = -SCAN_S
        self.ends = threading.Event()

    def scan(self) -> None:
        """Find runs that are new."""
        seen = {}
        for name, root in self.roots.items():
            for folder in folders(root):
                parts = [name, *folder.relative_to(root).parts]
                seen["/".join(filter(None, parts)) or root.name] = folder
        with self.lock:
            for name, folder in seen.items():
                if name not in self.runs:
                    with contextlib.suppress(OSError):  # gone in between
                        self.runs[name] = Run(folder, name)
                        self.version += 1

    def look(self) -> None:
        """One round: new runs, and what is new in each."""
        if time.monotonic() - self.scanned >= SCAN_S:
            self.scan()
            self.scanned = time.monotonic()
        for run in list(self.runs.values()):
            try:
                with self.lock:
                    before = run.version
                    run.refresh()
                    self.version += run.version - before
            except OSError:
                with self.lock:
                    self.runs.pop(run.name, None)
                    self.version += 1
        self.looked = True

    def follow(self) -> None:
        """Look until told to end."""
        while not self.ends.is_set():
            self.look()
            self.ends.wait(TICK_S)

    def get(self, name: str) -> Run:
        """A run by its name. Raises Gone."""
        try:
            return self.runs[name]
        except KeyError:
            raise Gone(f"no run {name} (any more)") from None
