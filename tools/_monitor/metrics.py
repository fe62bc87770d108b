"""The metrics of a run in memory: a column of numbers for each name, and curves of few points from them."""

import math
import re
from array import array
from typing import NamedTuple

NO_VALUE = math.nan


class Section(NamedTuple):
    """Curves that are shown together: those whose name matches, in the order of the alternatives."""

    title: str
    patterns: tuple[str, ...]


SECTIONS = (
    Section(
        "Main",
        (
            "critic/score/mean", "val-core/.*/acc/mean@.*", "val-core/.*/mean@.*", "val/loss", "val/accuracy",
            "train/loss", "train/accuracy", "train/margin", "actor/kl_loss", "actor/reward_kl_penalty",
            "actor/entropy", "response_length/mean", "response_length/clip_ratio", "actor/pg_loss", "critic/vf_loss",
            "actor/grad_norm", "train/grad_norm", "actor/lr", "train/lr", "groups/same_score", "timing_s/step",
        ),
    ),
    Section("Reward: parts", (r"reward/[^/]+", r"reward/[^/]+/std")),
    Section("Reward: classes", (r"reward/.+/.+",)),
    Section("Validation", (r"val-.*|val/.*",)),
    Section("Times", (r"timing_s/.*", r"perf/.*|.*/perf/.*", r"timing_.*")),
    Section("Everything else", (r".*",)),
)  # fmt: skip


def sections(names: set[str]) -> list[tuple[str, list[str]]]:
    """Every name in the first section that takes it; sections that have none are left out."""
    left, made = set(names), []
    for section in SECTIONS:
        mine: list[str] = []
        for pattern in section.patterns:
            mine += sorted(name for name in left - set(mine) if re.fullmatch(pattern, name))
        left -= set(mine)
        if mine:
            made.append((section.title, mine))
    return made


class Metrics:
    """All metrics of all steps, each step once, as launcher/metrics.py reads them: the last time counts, and what came
    after a step that is made again is no part of the run any more."""

    def __init__(self) -> None:
        self.row: dict[int, int] = {}  # step → place in each column
        self.rows = 0  # places that were given
        self.columns: dict[str, array] = {}
        self.order: list[int] = []  # the steps, sorted

    def add(self, step: int, values: dict) -> None:
        """One line of metrics.jsonl."""
        while self.order and self.order[-1] > step:
            del self.row[self.order.pop()]
        row = self.row.get(step)
        if row is None:
            row = self.row[step] = self.rows
            self.rows += 1
            self.order.append(step)
        columns = self.columns
        for name, value in values.items():
            if type(value) is int:
                value = float(value)
            elif type(value) is not float:  # a text, a list, true
                continue
            elif value != value:
                value = (
                    math.inf
                )  # nan marks what is missing: a value that is no number is kept as infinite
            column = columns.get(name)
            if column is None:
                column = columns[name] = array("d")
            if len(column) == row:  # the common case, of a million values a run
                column.append(value)
                continue
            if len(column) < row + 1:
                column.extend([NO_VALUE] * (row + 1 - len(column)))
            column[row] = value

    def column(self, name: str | None) -> array | None:
        """A value for each row, nan where there is none."""
        column = self.columns.get(name) if name else None
        if column is not None and len(column) < self.rows:
            column.extend([NO_VALUE] * (self.rows - len(column)))
        return column

    @property
    def last_step(self) -> int:
        """The highest step; 0 without any."""
        return self.order[-1] if self.order else 0

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric by step, where it has one."""
        column = self.column(name)
        if column is None:
            return []
        row = self.row
        return [(s, v) for s in self.order if not math.isnan(v := column[row[s]])]

    def last(self, name: str | None) -> float | None:
        """The newest value of a metric; None without any."""
        column = self.column(name)
        if column is None:
            return None
        values = (column[self.row[step]] for step in reversed(self.order))
        return next((value for value in values if not math.isnan(value)), None)


def thinned(series: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most so many points that look the same: of each stretch of steps the lowest and the highest, and the ends."""
    if len(series) <= most:
        return series
    stretches = max(1, most // 2 - 1)
    inner = series[1:-1]
    kept = [series[0]]
    for i in range(stretches):
        part = inner[i * len(inner) // stretches : (i + 1) * len(inner) // stretches]
        low, high = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        kept += sorted({low, high})
    return [*kept, series[-1]]


def curve(series: list[tuple[int, float]], most: int) -> dict[str, list]:
    """As the page takes it; what is no number is null."""
    points = thinned(series, most)
    return {
        "x": [step for step, _ in points],
        "y": [float(f"{v:.6g}") if math.isfinite(v) else None for _, v in points],
    }
