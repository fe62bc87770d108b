"""The rewards of this folder by name: NAME.py each, but for those that begin with `_`."""

import importlib
from pathlib import Path
from types import ModuleType

from preflight.mistakes import unknown


def names() -> list[str]:
    """All of them, sorted."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> ModuleType:
    """The module of a reward. ValueError for a name that does not exist."""
    if name not in names():
        raise ValueError(unknown("reward", name, names()))
    return importlib.import_module(f"rewards.{name}")


def path_of(name: str) -> str:
    """Of a reward by its name, or by its file, as verl's custom_reward_function.path. ValueError for neither."""
    if name.endswith(".py"):
        return name
    if name not in names():
        raise ValueError(unknown("reward", name, names()))
    return f"pkg://rewards.{name}"
