"""Checks that run before verl starts: what verl would find out only after minutes, or never.

One function a check: a function `check_...(config) -> str | None` in any check_*.py of this folder is
found and called; it returns what is wrong and what to do, in one line. Those in slow_*.py are for
`make check` alone. `lab.preflight.skip` leaves single ones out, by name. No torch, no verl.
"""

import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

MAX_LINES = 3
DEFAULT, SLOW = "check", "slow"  # what the names of files with checks begin with


class Mistake(Exception):
    """A user's mistake: a line or two for standard error, exit status 2, no traceback.

    Raised by a check, it is the last word: the others could make no sense of this config.
    """


class Note(str):
    """What a check has to say that is no mistake; `make check` shows it."""


class Result(NamedTuple):
    """Of one check: its name, what it has to say (None: nothing), and how long it took."""

    name: str
    said: str | None
    seconds: float


def modules(kind: str = DEFAULT) -> list[str]:
    """Names of the modules that hold checks of a kind, in the order of the alphabet."""
    return sorted(path.stem for path in Path(__file__).parent.glob(f"{kind}_*.py"))


def checks(kind: str = DEFAULT) -> dict[str, Callable[[DictConfig], str | None]]:
    """All checks of a kind by name, cheap modules first."""
    found = {}
    for name in modules(kind):
        module = importlib.import_module(f"preflight.{name}")
        for key, function in vars(module).items():
            if (
                key.startswith("check_")
                and getattr(function, "__module__", None) == module.__name__
            ):
                found[key] = function
    return found


def skipped(config: DictConfig) -> set[str]:
    """Names of the checks that are left out, in full."""
    given = config.lab.preflight.skip or []
    given = [given] if isinstance(given, str) else given
    return {f"check_{name.removeprefix('check_')}" for name in given}


def results(config: DictConfig, *kinds: str) -> Iterator[Result]:
    """What each check of these kinds says, one after the other."""
    skip = skipped(config)
    for kind in kinds:
        for name, function in checks(kind).items():
            if name in skip:
                yield Result(name, Note("left out by lab.preflight.skip"), 0.0)
                continue
            begin = time.perf_counter()
            try:
                said, last = function(config), False
            except Mistake as mistake:
                said, last = str(mistake), True
            yield Result(name, said, time.perf_counter() - begin)
            if last:
                return


def mistakes(config: DictConfig) -> Iterator[str]:
    """What is wrong, by the checks that run before every run."""
    for result in results(config, DEFAULT):
        if result.said and not isinstance(result.said, Note):
            yield result.said


def check(config: DictConfig) -> None:
    """Run these checks on a composed config; raises Mistake with at most three lines."""
    lines: list[str] = []
    for wrong in mistakes(config):
        lines += [wrong]
        if len(lines) == MAX_LINES:
            break
    if lines:
        raise Mistake("\n".join(lines))
