"""What a comparison finds: means, differences, verdicts, categories, questions won and lost."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from preflight.mistakes import Mistake
from tools._compare import statistics
from tools._compare.pairing import Paired, metric_of, paired, value
from tools._compare.parts import Parts, parts
from tools._compare.reading import Answer, Answers, is_score
from tools._compare.statistics import Estimate

ALPHA = 0.05
FEW_CLUSTERS = 10  # below it an interval over clusters is rough
FEW_SEEDS = 5
NAMES = {"acc": "right answers", "executed": "answers that run", "score": "score"}


class Options(NamedTuple):
    """What the command line says about how to compare."""

    metric: str | None = None
    by: str | None = None
    cluster: str | None = None
    all_pairs: bool = False


class Pair(NamedTuple):
    """Two sides; the difference is the second's mean less the first's."""

    first: int
    second: int
    difference: Estimate
    mcnemar: float | None  # p; None where the metric is not right or wrong
    won: int  # questions on which the second is better
    lost: int
    same: int
    p: float  # what decides, corrected if there are several pairs
    apart: bool
    verdict: str


class Example(NamedTuple):
    """A question that a side won or lost, with an answer of each side."""

    prompt: str
    truth: str
    values: list[float]
    answers: list[Answer]


class Category(NamedTuple):
    """The questions of one category."""

    name: str
    questions: int
    means: list[Estimate]
    difference: Estimate  # of the second side to the first


class Comparison(NamedTuple):
    """Everything that is shown."""

    sides: list[Answers]
    names: list[str]
    metric: str
    options: Options
    pairs: Paired
    means: list[Estimate]
    compared: list[Pair]
    seeds: list[Pair]  # between groups of seeds: IQM
    seed_means: list[Estimate]
    categories: list[Category]
    parts: Parts
    won: list[Example]  # by the second side against the first, the clearest first
    lost: list[Example]
    notes: list[str]

    @property
    def verdicts(self) -> list[str]:
        """In plain words; where there are seeds, what the seeds say."""
        return [pair.verdict for pair in self.seeds or self.compared]


def title(metric: str) -> str:
    """What a metric is called."""
    reward, slash, part = metric.rpartition("/")
    return f"{reward}{slash}{NAMES.get(part, part)}" if part in NAMES else metric


def compare(sides: list[Answers], names: list[str], options: Options) -> Comparison:
    """The comparison of two sides or more. Raises Mistake."""
    metric = metric_of(sides, options.metric)
    pairs = paired(sides, metric)
    clusters = pairs.category(options.cluster) if options.cluster else None
    labels = pairs.category(options.by) if options.by else None
    values, count = pairs.values, len(sides)
    which = (
        list(combinations(range(count), 2))
        if options.all_pairs
        else [(0, i) for i in range(1, count)]
    )
    differences = np.column_stack([values[:, b] - values[:, a] for a, b in which])
    found = statistics.estimates(np.column_stack([values, differences]), clusters)
    means, differ = found[:count], found[count:]
    compared = [
        judge(values, names, metric, pair, d, options.cluster)
        for pair, d in zip(which, differ, strict=True)
    ]
    compared = corrected(compared, names, metric, options.cluster, len(values))
    seed_means, seeds = by_seeds(sides, names, pairs, metric, labels, which)
    won, lost = examples(pairs, 1), examples(pairs, -1)
    return Comparison(
        sides,
        names,
        metric,
        options,
        pairs,
        means,
        compared,
        seeds,
        seed_means,
        by_category(values, labels),
        parts(names, pairs),
        won,
        lost,
        notes(pairs, means, compared, seeds, sides, options),
    )


def judge(
    values: np.ndarray,
    names: list[str],
    metric: str,
    which: tuple[int, int],
    difference: Estimate,
    cluster: str | None,
) -> Pair:
    """One pair, before any correction.

    Right or wrong, and no clusters: McNemar's exact test has to agree with the interval, which is too short where few
    answers changed. It takes questions as independent, so with clusters the interval alone decides.
    """
    a, b = which
    won, lost = int((values[:, b] > values[:, a]).sum()), int((values[:, b] < values[:, a]).sum())
    exact = None
    if set(np.unique(values[:, [a, b]])) <= {0.0, 1.0}:
        exact = statistics.mcnemar(won, lost)
    p = difference.p if exact is None or cluster else max(difference.p, exact)
    return Pair(a, b, difference, exact, won, lost, len(values) - won - lost, p, False, "")


def corrected(
    compared: list[Pair], names: list[str], metric: str, cluster: str | None, rows: int
) -> list[Pair]:
    """The pairs with Holm's correction, and a verdict for each."""
    where = f"these {rows} rows"
    if cluster:
        where += f" in {compared[0].difference.clusters} clusters of {cluster}"
    made = []
    for pair, p in zip(compared, statistics.holm([pair.p for pair in compared]), strict=True):
        apart = p < ALPHA and pair.difference.apart
        several = len(names) > 2
        said = verdict(names, pair, metric, apart, where, several)
        if not pair.won and not pair.lost:
            said = f"{names[pair.first]} and {names[pair.second]} have the same {title(metric)} in all of {where}"
        made.append(pair._replace(p=p, apart=apart, verdict=said))
    return made


def verdict(
    names: list[str], pair: Pair, metric: str, apart: bool, where: str, several: bool
) -> str:
    """The finding in plain words."""
    d = pair.difference
    a, b = names[pair.first], names[pair.second]
    if not apart:
        between = f" between {a} and {b}" if several else ""
        could = f" (smallest that they could: {d.smallest:.2g})" if d.smallest > 0 else ""
        return f"no difference{between} that {where} could show{could}"
    if d.value < 0:  # the better one is named
        a, b, d = b, a, d._replace(value=-d.value, low=-d.high, high=-d.low)
    judged = metric.rpartition("/")[2] == "acc" or is_score(metric)
    word = "better" if judged else f"higher in {title(metric)}"  # more tokens are not better
    than = f" than {a}" if several else ""
    return f"{b} is {word}{than} by {d.value:.3f} ({d.low:.3f} to {d.high:.3f})"


def by_seeds(
    sides: list[Answers],
    names: list[str],
    pairs: Paired,
    metric: str,
    labels: np.ndarray | None,
    which: list[tuple[int, int]],
) -> tuple[list[Estimate], list[Pair]]:
    """Groups of seeds: the IQM of each, and the differences; nothing where no side is a group. Raises Mistake.

    The tasks (strata) are the categories of --by; without, all questions are one task.
    """
    if not any(len(side.seeds) > 1 for side in sides):
        return [], []
    for side, name in zip(sides, names, strict=True):
        if len(side.seeds) < 2:
            raise Mistake(f"{name} is a single run, and others are groups of seeds: give it at least two seeds"
                          f" ({name}=PATH,PATH), or compare single runs")  # fmt: skip
    tasks = (
        np.zeros(len(pairs.keys), dtype=int)
        if labels is None
        else np.unique(labels, return_inverse=True)[1]
    )
    scores = [seed_scores(side, pairs, place, metric, tasks) for place, side in enumerate(sides)]
    means = [statistics.seeds_estimate(score) for score in scores]
    found = []
    for a, b in which:
        d = statistics.seeds_estimate(scores[b], scores[a])
        found.append(Pair(a, b, d, None, 0, 0, 0, d.p, False, ""))
    made = []
    for pair, p in zip(found, statistics.holm([pair.p for pair in found]), strict=True):
        apart = p < ALPHA and pair.difference.apart
        where = f"{len(scores[pair.first])} and {len(scores[pair.second])} seeds"
        said = verdict(names, pair, metric, apart, where, len(names) > 2)
        made.append(
            pair._replace(p=p, apart=apart, verdict=f"{said}, over {where}" if apart else said)
        )
    return means, made


def seed_scores(
    side: Answers, pairs: Paired, place: int, metric: str, tasks: np.ndarray
) -> np.ndarray:
    """The mean of the metric of each seed in each task: (S, T). Raises Mistake if a seed has no answer to a task."""
    sums, counts = (np.zeros((len(side.seeds), tasks.max() + 1)) for _ in range(2))
    for key, task in zip(pairs.keys, tasks, strict=True):
        for answer in pairs.answers[place][key]:
            if (v := value(answer, metric)) is not None:
                sums[answer.seed, task] += v
                counts[answer.seed, task] += 1
    if not counts.all():
        missing = side.seeds[int(np.argwhere(counts == 0)[0][0])]
        raise Mistake(
            f"{side.name}: the seed {missing} was not asked the questions that all others were"
        )
    return sums / counts


def by_category(values: np.ndarray, labels: np.ndarray | None) -> list[Category]:
    """Means and the difference of the second side to the first in each category; clusters are the questions."""
    made = []
    for name in np.unique(labels) if labels is not None else []:
        some = values[labels == name]
        found = statistics.estimates(np.column_stack([some, some[:, 1] - some[:, 0]]))
        made.append(Category(str(name), len(some), found[:-1], found[-1]))
    return made


def examples(pairs: Paired, sign: int) -> list[Example]:
    """Questions that the second side won (sign 1) or lost (-1) against the first, the clearest first."""
    change = sign * (pairs.values[:, 1] - pairs.values[:, 0])
    found = []
    for at in np.argsort(-change, kind="stable"):
        if change[at] <= 0:
            break
        key = pairs.keys[at]
        answers = [side[key][0] for side in pairs.answers]
        found.append(
            Example(answers[0].prompt, answers[0].truth, pairs.values[at].tolist(), answers)
        )
    return found


def notes(
    pairs: Paired,
    means: list[Estimate],
    compared: list[Pair],
    seeds: list[Pair],
    sides: list[Answers],
    options: Options,
) -> list[str]:
    """How it was found, and what to be careful with, a sentence each."""
    count = len(pairs.keys)
    said = [
        f"{count} question{'s'[: count != 1]} that all sides have, told apart by {pairs.told_by}"
    ]
    if pairs.others:
        said.append(
            f"{pairs.others} question{'s'[: pairs.others != 1]} left out: not all sides have them"
        )
    if pairs.ungraded:
        said.append(f"{pairs.ungraded} question{'s'[: pairs.ungraded != 1]} left out: an answer could not be graded,"
                    " which does not make it wrong")  # fmt: skip
    clusters = means[0].clusters
    drawn = f"clusters of {options.cluster} ({clusters})" if options.cluster else "questions"
    said.append(f"95 % intervals: paired bootstrap over {drawn}, {statistics.RESAMPLES:,} resamples,"
                f" seed {statistics.SEED}")  # fmt: skip
    if clusters < FEW_CLUSTERS:
        said.append(f"{clusters} clusters only: read the intervals as rough")
    if len(compared) > 1:
        said.append(
            f"{len(compared)} pairs: p has Holm's correction, and decides; the intervals have none"
        )
    exact = [p for p in compared if p.mcnemar is not None]
    if not options.cluster and any(p.difference.apart and p.mcnemar >= ALPHA for p in exact):
        said.append(
            "few answers changed: the interval leaves 0 out, but McNemar's exact test does not agree"
        )
    if options.cluster and exact:
        said.append(
            "McNemar's test takes the questions as independent: with clusters the interval decides"
        )
    if options.by:
        said.append(f"by {options.by}: one category in twenty differs by chance alone")
    if seeds:
        least = min(len(side.seeds) for side in sides)
        said.append("between settings the seeds decide: IQM over seeds, stratified bootstrap; the difference over"
                    " questions takes these seeds as given")  # fmt: skip
        if least < FEW_SEEDS:
            said.append(
                f"{least} seeds only: their interval is rough, and only large differences show"
            )
    return said
