"""Checks that run before verl starts: what verl would find out only after minutes, or never.

One function a check: a function `check_...(config) -> str | None` in any module of this folder is
found and called; it returns what is wrong and what to do, in one line. No torch, no verl.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

MAX_LINES = 3


class Mistake(Exception):
    """A user's mistake: a line or two for standard error, exit status 2, no traceback."""


def modules() -> list[str]:
    """Names of the modules that hold checks, in the order of the alphabet."""
    return sorted(path.stem for path in Path(__file__).parent.glob("check_*.py"))


def mistakes(config: DictConfig) -> Iterator[str]:
    """What each check has to say, cheap modules first."""
    for name in modules():
        module = importlib.import_module(f"preflight.{name}")
        for key, function in vars(module).items():
            own = (
                key.startswith("check_")
                and getattr(function, "__module__", None) == module.__name__
            )
            if own and (wrong := function(config)):
                yield wrong


def check(config: DictConfig) -> None:
    """Run all checks on a composed config; raises Mistake with at most three lines."""
    lines: list[str] = []
    for wrong in mistakes(config):
        lines += [wrong]
        if len(lines) == MAX_LINES:
            break
    if lines:
        raise Mistake("\n".join(lines))
