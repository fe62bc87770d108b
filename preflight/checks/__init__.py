"""All checks, in their order; preflight/preparation.py runs them.

One function a check: each `check_...(config) -> str | None` of the modules below. It returns what is wrong and what to
do about it, in one line; or a Note, which is not a mistake; or None. A check of some runs alone says so with
`@applies_to`; one that needs the plan has a second parameter, `expected`. To add one: write the function, and list its
module here if it is a new one. Checks import no other checks: what several of them need is in preflight/facts.py and
its neighbours.
"""

import functools
import importlib
from collections.abc import Callable
from typing import NamedTuple

from omegaconf import DictConfig, ListConfig

# Of a config, and of a Forecast if it has the parameter `expected`.
Check = Callable[..., str | None]
# A run is refused with the first three complaints, so mistakes with a clear reason come first.
DEFAULT = (
    "values", "names", "algos",  # types, words and single values
    "files", "code",  # what must be there
    "algorithms", "preference", "self_play", "trainer", "correction", "lora", "knobs", "unread", "learning",
    "sweep", "limits", "repetition",  # what goes together
    "reward_options", "reward_model",
    "batch", "micro_batch", "parallel",  # numbers that must divide
    "cluster", "machine", "ray",  # what this machine has, or a cluster
    "memory",  # what fits into it
    "columns", "prompts", "rows", "first_answers",  # the data itself
)  # fmt: skip
SLOW = ("slow_lengths", "slow_reward", "slow_verl")  # of `make check` alone


class Note(str):
    """What a check has to say that is not a mistake; `make check` shows it."""


class Finding(NamedTuple):
    """Of one check: its name, its message (None: nothing to say), how long it took, whether no check comes after it."""

    name: str
    message: str | None
    seconds: float
    is_last: bool = False

    @property
    def is_wrong(self) -> bool:
        """Whether the message is a complaint."""
        return bool(self.message) and not isinstance(self.message, Note)


def applies_to(*conditions: Callable[[DictConfig], bool]) -> Callable[[Check], Check]:
    """A check of those runs alone for which all the conditions hold; of others it says nothing."""

    def decorate(check: Check) -> Check:
        @functools.wraps(check)
        def conditional(config: DictConfig, *more) -> str | None:
            return check(config, *more) if all(holds(config) for holds in conditions) else None

        return conditional

    return decorate


def of_the_node(check: Check) -> Check:
    """A check of the machine that the run is on. Where a cluster's job begins the run, it is made when that begins."""
    check.of_the_node = lambda config: True  # type: ignore[attr-defined]
    return check


def of_a_cpu_node(check: Check) -> Check:
    """The same, of a check that looks at the machine only where its CPU is the device: a GPU's profile says it all."""
    check.of_the_node = lambda config: config.lab.hw.device == "cpu"  # type: ignore[attr-defined]
    return check


def is_of_the_node(check: Check, config: DictConfig) -> bool:
    """Whether a check of this run looks at the machine that the run is on."""
    return hasattr(check, "of_the_node") and check.of_the_node(config)


def checks(modules: tuple[str, ...] = DEFAULT) -> dict[str, Check]:
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
    """Names of the checks that `lab.preflight.skip` leaves out, in full."""
    chosen = config.lab.get("preflight") if isinstance(config.lab, DictConfig) else None
    given = chosen.get("skip") if isinstance(chosen, DictConfig) else None
    given = [given] if isinstance(given, str) else given
    given = given if isinstance(given, ListConfig | list) else []  # check_values says what is wrong
    return {f"check_{name.removeprefix('check_')}" for name in map(str, given)}
