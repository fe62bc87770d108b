"""All checks, in their order: what comes first makes sense of what comes later, and the cheap ones come early.

One function a check: each `check_...(config) -> str | None` of the modules below; it returns what is wrong and what to
do, in one line. Those of SLOW are for `make check` alone. `lab.preflight.skip` leaves single ones out, by name.
"""

import importlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from omegaconf import DictConfig

from preflight.mistakes import Mistake

MAX_LINES = 3
DEFAULT = (
    "algos", "names", "values", "batch", "micro_batch", "parallel", "trainer", "algorithms", "correction", "knobs",
    "limits", "lora", "columns", "files", "machine", "ray", "rows", "preference", "reward_model", "reward_options",
    "self_play", "memory",
)  # fmt: skip
SLOW = ("slow_lengths", "slow_reward", "slow_verl")


class Note(str):
    """What a check has to say that is no mistake; `make check` shows it."""


class Finding(NamedTuple):
    """Of one check: its name, what it has to say (None: nothing), and how long it took."""

    name: str
    said: str | None
    seconds: float


def checks(modules: tuple[str, ...] = DEFAULT) -> dict[str, Callable[[DictConfig], str | None]]:
    """The checks of these modules by name, in their order."""
    found = {}
    for name in modules:
        module = importlib.import_module(f"preflight.checks.{name}")
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


def findings(config: DictConfig, *kinds: tuple[str, ...]) -> Iterator[Finding]:
    """What each check of these kinds says, one after the other."""
    skip = skipped(config)
    for kind in kinds:
        for name, function in checks(kind).items():
            if name in skip:
                yield Finding(name, Note("left out by lab.preflight.skip"), 0.0)
                continue
            begin = time.perf_counter()
            try:
                said, last = function(config), False
            except Mistake as mistake:
                said, last = str(mistake), True
            yield Finding(name, said, time.perf_counter() - begin)
            if last:
                return


def complaints(config: DictConfig) -> Iterator[str]:
    """What is wrong, by the checks that run before every run."""
    for found in findings(config, DEFAULT):
        if found.said and not isinstance(found.said, Note):
            yield found.said


def refuse(config: DictConfig) -> None:
    """Run these checks on a composed config; raises Mistake with at most three lines."""
    lines: list[str] = []
    for wrong in complaints(config):
        lines += [wrong]
        if len(lines) == MAX_LINES:
            break
    if lines:
        raise Mistake("\n".join(lines))
