"""A composed config before its run: its values, what lab.plan=auto chooses, the plan, the checks, in this order."""

import inspect
import time
from collections.abc import Iterator
from itertools import islice

from omegaconf import DictConfig

from preflight import checks, cluster
from preflight.checks import Check, Finding, Note, is_of_the_node
from preflight.checks.values import check_values
from preflight.memory.fit import choose
from preflight.memory.forecast import Forecast, forecast
from preflight.mistakes import MAX_LINES, Mistake
from preflight.models import UnknownModel

LEFT_OUT = Note("left out by lab.preflight.skip")
ON_THE_NODE = Note("checked when the cluster's job begins")


class Preparation:
    """What is found out of a config before its run. The check of single values, and the plan, are made once.

    Args:
        config: with lab.plan=auto it is changed.

    Attributes:
        expected: the plan and the time of a step; where values can't be calculated with, why there are none.
        notes: what the checks have to say that is not a mistake, once `refuse` has returned.
    """

    def __init__(self, config: DictConfig):
        self.config, self.expected = config, Forecast()
        self.notes: list[str] = []
        self.values = self.look("check_values", check_values)
        wrong = self.values.is_wrong
        self.expected = Forecast(unknown=self.values.message) if wrong else self.plan()

    def plan(self) -> Forecast:
        """Choose with lab.plan=auto, then make the plan."""
        try:
            chosen = choose(self.config) if self.config.lab.plan == "auto" else {}
            return forecast(self.config, chosen)
        except UnknownModel as error:
            return Forecast(unknown=str(error))

    def look(self, name: str, check: Check) -> Finding:
        """What one check says; one with a parameter `expected` gets the forecast."""
        wanted = "expected" in inspect.signature(check).parameters
        begin = time.perf_counter()
        try:
            message, last = check(self.config, *([self.expected] if wanted else [])), False
        except Mistake as mistake:
            message, last = str(mistake), True
        return Finding(name, message, time.perf_counter() - begin, last)

    def findings(self, *kinds: tuple[str, ...]) -> Iterator[Finding]:
        """What each check of these kinds (checks.DEFAULT, checks.SLOW) says, one after the other."""
        skip = checks.skipped(self.config)
        for kind in kinds:
            for name, check in checks.checks(kind).items():
                if name in skip:
                    yield Finding(name, LEFT_OUT, 0.0)
                    continue
                if is_of_the_node(check, self.config) and not cluster.begins_here(self.config):
                    yield Finding(name, ON_THE_NODE, 0.0)
                    continue
                found = self.values if name == self.values.name else self.look(name, check)
                yield found
                if found.is_last:
                    return

    def complaints(self) -> Iterator[str]:
        """What is wrong, by the checks that run before every run; meanwhile their notes are collected."""
        left: list[str] = []
        for found in self.findings(checks.DEFAULT):
            if found.is_wrong:
                yield found.message
            elif found.message == ON_THE_NODE:
                left.append(found.name.removeprefix("check_"))
            elif found.message and found.message != LEFT_OUT:
                self.notes.append(found.message)
        if left:
            self.notes.append(f"{ON_THE_NODE}: {', '.join(left)}")

    def refuse(self) -> None:
        """Raises Mistake with the first complaints, at most three lines; nothing if there are none."""
        if lines := list(islice(self.complaints(), MAX_LINES)):
            raise Mistake("\n".join(lines))
