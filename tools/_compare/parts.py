"""Distributions of the parts of a reward on each side, and what in them says collapse.

A policy that has collapsed gives the same answer to everything: its parts lose their spread, one value stands in nearly
all answers, and few answers are distinct. A mean does not show it.
"""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from tools._compare.pairing import MASKED, Paired, graded
from tools._compare.reading import Answer

BINS = 20
OUTER = (0.5, 99.5)  # percentiles: where the bars end
MOST_CLASSES = 8  # of a part that is text; the others are counted together
FREE_TEXT = (
    0.5  # a part with more distinct texts an answer than this is no class, but an explanation
)
FELL = 0.1  # spread of a side over that of the first, below which it has collapsed
SAME = (
    0.95  # share of answers with one value, or one answer, from which on it is nearly all of them
)
FEW = 0.05  # share of distinct answers, below which they are nearly all the same
ENOUGH = 20  # answers, below which such shares say nothing
OTHER = "(other)"


class Spread(NamedTuple):
    """A part that is a number, on one side."""

    answers: int  # with a number
    missing: float  # share of answers without
    mean: float
    std: float
    width: (
        float  # from the 5th to the 95th percentile: a spread that a single outlier does not make
    )
    low: float
    high: float
    common: float  # the commonest value
    share: float  # of answers with it
    bars: list[float]  # share of answers in each bin


class Number(NamedTuple):
    """A part that is a number."""

    name: str
    edges: list[float]
    sides: list[Spread | None]


class Classes(NamedTuple):
    """A part that is text: the share of each class, on each side."""

    name: str
    labels: list[str]
    sides: list[dict[str, float]]


class Overall(NamedTuple):
    """What holds of all answers of a side; shares."""

    answers: int
    each: float  # answers a question
    ungraded: float
    stopped: float  # the reward was stopped: time, memory
    cut_off: float | None  # at the most tokens; None: the file does not say
    distinct: float
    commonest: float  # share of the answers that are the commonest one
    within: float | None  # distinct answers to one question; None: a single sample


class Parts(NamedTuple):
    """All of it."""

    overall: list[Overall]
    numbers: list[Number]
    classes: list[Classes]
    constant: dict[str, Any]  # the same in all answers of all sides
    warnings: list[str]


def parts(names: list[str], pairs: Paired) -> Parts:
    """Distributions over all answers to the shared questions; `names`: of the sides."""
    rows = [pairs.rows(side) for side in range(len(names))]
    found = [overall(some, len(pairs.shared), pairs, side) for side, some in enumerate(rows)]
    numbers, classes, constant = [], [], {}
    for name in sorted({name for some in rows for row in some for name in row.parts}):
        columns = [
            [row.parts.get(name) if counts(row, name) else None for row in some] for some in rows
        ]
        values = {v if isinstance(v, float | str) else None for column in columns for v in column}
        if len(values - {None}) == 1 and None not in values and len(names) > 1:
            constant[name] = values.pop()
        elif any(isinstance(v, float) for v in values):
            numbers.append(number(name, columns))
        elif len(values) <= max(MOST_CLASSES, FREE_TEXT * sum(map(len, rows))):
            classes.append(
                shares(name, [[v for v in column if isinstance(v, str)] for column in columns])
            )
    return Parts(found, numbers, classes, constant, warnings(names, found, numbers))


def counts(row: Answer, name: str) -> bool:
    """Whether a part of an answer says something: the marks of what could not be graded always do."""
    return name.rpartition("/")[2] in (MASKED, "stopped", "outcome") or graded(row, name)


def overall(rows: list[Answer], questions: int, pairs: Paired, side: int) -> Overall:
    """The figures that are of no single part."""
    texts = Counter(row.text.strip() for row in rows)
    finishes = [row.finish for row in rows if row.finish]
    stopped = [was_stopped(row) for row in rows]
    groups = [[a.text.strip() for a in pairs.answers[side][key]] for key in pairs.shared]
    several = [len(set(group)) / len(group) for group in groups if len(group) > 1]
    return Overall(
        len(rows),
        len(rows) / questions,
        float(np.mean([not graded(row, metric_part(row)) for row in rows])),
        float(np.mean(stopped)),
        float(np.mean([f == "length" for f in finishes])) if finishes else None,
        len(texts) / len(rows),
        texts.most_common(1)[0][1] / len(rows),
        float(np.mean(several)) if several else None,
    )


def was_stopped(row: Answer) -> bool:
    """Whether a reward was stopped while it graded the answer."""
    marks = [value for name, value in row.parts.items() if name.rpartition("/")[2] == "stopped"]
    return any(mark not in ("no", None, 0.0) for mark in marks)


def metric_part(row: Answer) -> str:
    """A part whose score says whether the answer was graded: the first score there is."""
    return next((name for name in row.parts if name == "score" or name.endswith("/score")), "score")


def number(name: str, columns: list[list]) -> Number:
    """The spread of a number on each side, with histograms over the same bins."""
    sides = [
        np.array([v for v in column if isinstance(v, float) and np.isfinite(v)])
        for column in columns
    ]
    everything = np.concatenate(sides)
    # a single outlier would push all others into one bar: the outermost bars hold what lies beyond
    low, high = 0.0, 1.0
    if len(everything):
        low, high = (float(np.percentile(everything, end)) for end in OUTER)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    spreads = [
        spread(values, len(column), edges) for values, column in zip(sides, columns, strict=True)
    ]
    return Number(name, edges.tolist(), spreads)


def spread(values: np.ndarray, answers: int, edges: np.ndarray) -> Spread | None:
    """One side of a number; None if no answer has it."""
    if not len(values):
        return None
    distinct, times = np.unique(values, return_counts=True)
    most = int(times.argmax())
    return Spread(
        len(values),
        1 - len(values) / answers,
        float(values.mean()),
        float(values.std()),
        float(np.diff(np.percentile(values, [5, 95]))[0]),
        float(values.min()),
        float(values.max()),
        float(distinct[most]),
        float(times[most] / len(values)),
        (np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / len(values)).tolist(),
    )


def shares(name: str, columns: list[list[str]]) -> Classes:
    """The share of each class on each side, the commonest first."""
    total = sum((Counter(column) for column in columns), Counter())
    labels = [label for label, _ in total.most_common(MOST_CLASSES)]
    sides = []
    for column in columns:
        here = {label: column.count(label) / max(1, len(column)) for label in labels}
        if len(total) > len(labels):
            here[OTHER] = 1 - sum(here.values())
        sides.append(here)
    return Classes(name, labels + ([OTHER] if len(total) > len(labels) else []), sides)


def warnings(names: list[str], found: list[Overall], numbers: list[Number]) -> list[str]:
    """What says collapse, a sentence each.

    A part of 0 and 1 (right or wrong) may well become the same everywhere: that is success, or failure, and the mean
    tells which.
    """
    said = []
    for name, one in zip(names, found, strict=True):
        if one.answers >= ENOUGH and one.commonest >= SAME:
            said.append(f"{name}: {one.commonest:.0%} of the answers are the same one")
        elif one.answers >= ENOUGH and one.distinct <= FEW:
            said.append(f"{name}: only {one.distinct:.1%} of the answers are distinct")
    for part in numbers:
        first = part.sides[0]
        if first is None or ((part.edges[0], part.edges[-1]) == (0, 1) and binary(part)):
            continue
        for name, side in list(zip(names, part.sides, strict=True))[1:]:
            if side is None or side.answers < ENOUGH:
                continue
            if first.width > 0 and side.width < FELL * first.width:
                said.append(f"{name}: the spread of {part.name} fell (standard deviation {first.std:.3g} in"
                            f" {names[0]}, {side.std:.3g} here)")  # fmt: skip
            elif side.share >= SAME > first.share:
                said.append(f"{name}: {side.share:.0%} of the answers have {part.name} = {side.common:.3g}"
                            f" ({first.share:.0%} in {names[0]})")  # fmt: skip
    return said


def binary(part: Number) -> bool:
    """Whether a part is 0 or 1 in every answer."""
    return all(side is None or sum(side.bars[1:-1]) == 0 for side in part.sides)
