"""The same question on all sides: which answers belong together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from preflight.mistakes import Mistake
from tools._compare.reading import Answer, Answers, is_score

NONE = "none. A run's validations keep none, tools.evaluate keeps those of the file"
MASKED = "masked"  # of a validation: 1 where the answer could not be graded
Key = tuple
# How questions are told apart, the surest first. A prompt may differ in its system message, or in how it was decoded.
KEYS: dict[str, Callable[[Answer], Key | None]] = {
    "prompt and ground truth": lambda answer: (answer.prompt, answer.truth),
    "last message and ground truth": lambda answer: (answer.question, answer.truth),
    "row and ground truth": lambda answer: (
        None if answer.row is None else (answer.row, answer.truth)
    ),
}


@dataclass
class Paired:
    """The questions that all sides were asked."""

    shared: list[Key]  # all that the sides have in common
    keys: list[Key]  # those that are compared: with a graded answer of each side
    answers: list[dict[Key, list[Answer]]]  # of each side, by question
    told_by: str  # a name of KEYS
    others: int  # questions that not all sides have
    ungraded: int  # questions that some side has no graded answer to
    values: np.ndarray  # (questions, sides): the metric, mean over a question's graded answers

    def rows(self, side: int) -> list[Answer]:
        """All answers of a side to the shared questions, graded or not."""
        return [answer for key in self.shared for answer in self.answers[side][key]]

    def category(self, column: str) -> np.ndarray:
        """A column of each question. Raises Mistake if there is none, or if it is no property of the question."""
        found = []
        for key in self.keys:
            rows = [a.categories for some in self.answers for a in some[key]]
            values = {str(row[column]) for row in rows if column in row}
            if len(values) != 1:
                break
            found.append(values.pop())
        if len(found) == len(self.keys):
            return np.array(found)
        known = sorted(
            {name for some in self.answers for a in some[self.keys[0]] for name in a.categories}
        )
        if column in known:
            raise Mistake(
                f"{column} differs between the sides, or is missing, in a question: {self.keys[len(found)][0]}"
            )
        raise Mistake(
            f"the questions have no column {column!r}. There is: {', '.join(known) or NONE}"
        )


def value(answer: Answer, part: str) -> float | None:
    """A part of an answer's reward as a number; None if it has none, or could not be graded.

    `PART/CLASS` is 1 or 0: whether a part that is text has that value.
    """
    if not graded(answer, part):
        return None
    found = answer.parts.get(part)
    if found is None and "/" in part:
        name, _, label = part.rpartition("/")
        found = answer.parts.get(name)
        return float(found == label) if isinstance(found, str) else None
    return found if isinstance(found, float) else None


def graded(answer: Answer, part: str = "score") -> bool:
    """Whether the reward that a part belongs to could grade the answer."""
    if answer.parts.get(MASKED) == 1:
        return False
    reward, slash, _ = part.rpartition("/")
    score = f"{reward}/score" if slash and f"{reward}/score" in answer.parts else "score"
    return part in ("tokens", "characters") or score not in answer.parts or answer.parts[score] is not None  # fmt: skip


def metric_of(sides: list[Answers], wanted: str | None) -> str:
    """The part that is compared: as wanted; else acc if all sides have it; else the score. Raises Mistake."""
    known = [
        {n for row in side.rows for n, v in row.parts.items() if isinstance(v, float)}
        for side in sides
    ]
    all_have = set.intersection(*known)
    if wanted:
        if any(value(row, wanted) is not None for side in sides for row in side.rows):
            return wanted
        raise Mistake(f"no answer has a number {wanted!r}. There is: {', '.join(sorted(all_have))}")
    for fits in (lambda n: n == "acc" or n.endswith("/acc"), is_score):
        if found := sorted(filter(fits, all_have), key=lambda name: (name.count("/"), name)):
            return found[0]
    for side, some in zip(sides, known, strict=True):
        if any(is_score(n) for row in side.rows for n in row.parts) and not any(
            map(is_score, some)
        ):
            raise Mistake(f"no answer of {side.name} could be graded: there is no score to compare")
    if any(is_score(name) for some in known for name in some):
        raise Mistake(
            "the sides have no score in common: give them the same reward, or choose a part with --metric"
        )
    raise Mistake("the answers have no score: give tools.evaluate a reward=NAME, or choose a number with --metric:"
                  f" {', '.join(sorted(all_have))}")  # fmt: skip


def paired(sides: list[Answers], metric: str) -> Paired:
    """The questions that all sides have. Raises Mistake if there are none."""
    best: tuple = (-1,)
    for name, key_of in KEYS.items():
        grouped = []
        for side in sides:
            questions: dict[Key, list[Answer]] = {}
            for answer in side.rows:
                if (key := key_of(answer)) is not None:
                    questions.setdefault(key, []).append(answer)
            grouped.append(questions)
        shared = [key for key in grouped[0] if all(key in other for other in grouped[1:])]
        if len(shared) > best[0]:
            best = (len(shared), name, grouped, shared)
        if shared and all(len(shared) == len(questions) for questions in grouped):
            break  # all of them
    count, name, grouped, shared = best
    if not count:
        names = " and ".join(side.name for side in sides)
        raise Mistake(f"{names} have no question in common (neither by prompt nor by row number, with the ground"
                      " truth): evaluate them on the same file")  # fmt: skip
    everything = set().union(*grouped)
    values = np.array([[mean(questions[key], metric) for questions in grouped] for key in shared])
    fine = ~np.isnan(values).any(1)
    if not fine.any():
        raise Mistake(
            f"no question has a graded answer of all sides ({metric}): there is nothing to compare"
        )
    keys = [key for key, good in zip(shared, fine, strict=True) if good]
    return Paired(
        shared, keys, grouped, name, len(everything) - count, int((~fine).sum()), values[fine]
    )


def mean(answers: list[Answer], metric: str) -> float:
    """The mean of a metric over the graded answers to a question; NaN if there is none."""
    found = [v for answer in answers if (v := value(answer, metric)) is not None]
    return sum(found) / len(found) if found else np.nan
