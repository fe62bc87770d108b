"""The figures of an evaluation, from its stored answers, one question at a time.

pass@k is the unbiased estimator of Chen et al., arXiv:2107.03374: 1 - C(n-c, k) / C(n, k) for c right answers of n.
maj@k is the share of questions whose most frequent answer of k is right (self-consistency, Wang et al., 2203.11171):
equal answers are those of equal `pred` (where the reward says one), else of equal text; for k < n it is the mean
over SUBSETS drawn subsets. Answers that could not be graded are left out, and counted.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import NamedTuple

from tools._evaluate.store import FIXED
from tools._models.engine import TOO_LONG

SUBSETS = 50
NORMAL_95 = 1.96  # of the standard error of a mean over questions
RIGHT = 1.0 - 1e-9  # an `acc`, or a score, from here on is right
EVERYTHING = "all"


class Mean(NamedTuple):
    """A mean, and half of its 95 % interval (NaN: unknown)."""

    mean: float
    margin: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if math.isnan(self.margin) else f" ± {self.margin:.3f}")


class Share(float):
    """A share, as tables show it."""

    def __str__(self) -> str:
        return f"{self:.3f}"


class Moments:
    """Mean and spread of values that come one at a time (Welford)."""

    def __init__(self) -> None:
        self.count, self.mean, self.square = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.square += step * (value - self.mean)

    @property
    def margin(self) -> float:
        """Half of the 95 % interval of the mean; NaN if all values are equal, which tells nothing of their spread."""
        if self.square < 1e-12:
            return math.nan
        return NORMAL_95 * math.sqrt(self.square / (self.count - 1) / self.count)

    @property
    def cell(self) -> Mean | str:
        """For a table."""
        return Mean(self.mean, self.margin) if self.count else "-"


class Figures:
    """Of one model, and one category."""

    def __init__(self) -> None:
        self.questions = self.answers = self.cut = self.ungraded = self.too_long = 0
        self.tokens = Moments()
        self.means: dict[str, Moments] = defaultdict(Moments)  # over questions: of each part
        self.classes: dict[str, Counter] = defaultdict(Counter)

    def add(self, lines: list[dict], parts: list[str], at: dict[str, float]) -> None:
        """A question: its answers, the names of the parts, and what depends on all answers together."""
        self.questions += 1
        self.answers += len(lines)
        for line in lines:
            self.cut += line["finish"] == "length"
            self.too_long += line["finish"] == TOO_LONG
            self.tokens.add(line["tokens"])
        for part in parts:
            values = [line.get(part) for line in lines]
            if texts := [v for v in values if isinstance(v, str)]:
                self.classes[part].update(texts)
            if numbers := [float(v) for v in values if isinstance(v, int | float)]:
                self.means[part].add(fmean(numbers))
        score = next((p for p in parts if p == "score" or p.endswith("/score")), None)
        if score:
            self.ungraded += sum(
                line.get(score) is None and line["finish"] != TOO_LONG for line in lines
            )
        for name, value in at.items():
            self.means[name].add(value)

    def share(self, part: str, value: str) -> "Share":
        """Of the answers, those of this class."""
        return Share(self.classes[part][value] / max(1, self.answers))

    def as_dict(self) -> dict:
        """For a file."""
        return {
            "questions": self.questions, "answers": self.answers, "cut": self.cut,
            "ungraded": self.ungraded, "prompt_too_long": self.too_long, "tokens": self.tokens.mean,
            "means": {n: {"mean": m.mean, "margin": None if math.isnan(m.margin) else m.margin, "questions": m.count}
                      for n, m in self.means.items()},
            "classes": {n: dict(c.most_common(20)) for n, c in self.classes.items()},
        }  # fmt: skip


def summarize(
    questions: Iterable[list[dict]], rewards: list[str], by: list[str], columns: list[str]
) -> dict[str, dict[str, Figures]]:
    """model → category → figures; the category EVERYTHING has all questions.

    Args:
        rewards: names of the rewards.
        by: columns whose values are categories.
        columns: of the rows themselves: no parts of a reward.
    """
    found: dict[str, dict[str, Figures]] = defaultdict(lambda: defaultdict(Figures))
    for lines in questions:
        parts = parts_of(lines, columns)
        at = {}
        for name in rewards:
            prefix, own = "" if len(rewards) == 1 else f"{name}/", [*parts, "row", "answer"]
            # the parts of this reward without its name; a column of the rows may have the name of a part
            of_it = [
                {k.removeprefix(f"{name}/"): v for k, v in line.items() if k in own}
                for line in lines
            ]
            at |= {f"{prefix}{k}": v for k, v in of_several(of_it).items()}
        of_model = found[lines[0]["model"]]
        of_model[EVERYTHING].add(lines, parts, at)
        for column in by:
            of_model[f"{column}={lines[0].get(column)}"].add(lines, parts, at)
    return found


def parts_of(lines: list[dict], columns: list[str]) -> list[str]:
    """The names of the reward's parts in the answers to a question."""
    return list(
        dict.fromkeys(n for line in lines for n in line if n not in FIXED and n not in columns)
    )


def powers(n: int) -> Iterator[int]:
    """1, 2, 4, ... and n."""
    k = 1
    while k < n:
        yield k
        k *= 2
    yield n


def of_several(lines: list[dict]) -> dict[str, float]:
    """pass@k and maj@k of the answers to one question; nothing if there is one answer, or none graded."""
    right, texts = [], []
    for line in lines:
        value = line.get("acc", line.get("score"))
        if isinstance(value, int | float):
            right.append(value >= RIGHT)
            texts.append(str(line.get("pred", line["answer"])).strip())
    if len(lines) < 2 or not right:
        return {}
    found = {}
    for k in powers(len(right)):
        found[f"pass@{k}"] = pass_at(len(right), sum(right), k)
        if k > 1:
            found[f"maj@{k}"] = majority(right, texts, k, seed=lines[0]["row"])
    return found


def pass_at(n: int, right: int, k: int) -> float:
    """The chance that k of n answers, drawn without putting back, hold a right one."""
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority(right: list[bool], texts: list[str], k: int, seed: int) -> float:
    """Whether the most frequent of k answers is right, mean over subsets; of equal ones the first counts."""
    n = len(texts)
    rng = random.Random(seed)
    chosen = [range(n)] if k == n else [sorted(rng.sample(range(n), k)) for _ in range(SUBSETS)]
    won = []
    for some in chosen:
        most, _ = Counter(texts[i] for i in some).most_common(1)[0]
        won.append(next(right[i] for i in some if texts[i] == most))
    return fmean(won)
