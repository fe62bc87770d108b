"""The statistics of a comparison: paired differences, their intervals and tests. Arrays in, numbers out.

Sources:
    Miller, Adding Error Bars to Evals, arXiv:2411.00640: paired differences, clustered errors, power.
    Hesterberg, What Teachers Should Know about the Bootstrap, arXiv:1411.5279: the expanded percentile interval.
    Agarwal et al., Deep RL at the Edge of the Statistical Precipice, arXiv:2108.13264: IQM, stratified bootstrap.
    Owen, The Pigeonhole Bootstrap, arXiv:0712.1111: rows and columns drawn at once, and what that counts twice.
    McNemar, Psychometrika 12 (1947); Holm, Scandinavian Journal of Statistics 6 (1979).
Shapes: _Q questions, _C clusters, _S seeds, _T tasks, _R resamples, _K quantities that are resampled together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special  # scipy.stats has names for these, and takes a second to import

SEED = 0  # fixed: the same files give the same figures
RESAMPLES = 10_000
LEVEL = 0.95
POWER = 0.8
AT_ONCE = 100_000  # drawn indices at once: what stays in the cache (ten times as many take ten times as long)


class Estimate(NamedTuple):
    """A mean, or a difference of means, with what is known about its error."""

    value: float
    low: float  # of the 95 % interval; NaN with a single cluster
    high: float
    error: float  # clustered standard error
    p: float  # two-sided, of the null hypothesis that the value is 0
    smallest: float  # the smallest difference from 0 that would be seen with a power of 80 %
    clusters: int

    @property
    def apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def estimate(
    values_Q: np.ndarray,
    clusters_Q: np.ndarray | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The mean of a value of each question: `estimates` of one quantity."""
    return estimates(np.asarray(values_Q, dtype=float)[:, None], clusters_Q, seed, resamples)[0]


def estimates(
    values_QK: np.ndarray,
    clusters_Q: np.ndarray | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """The mean of each quantity, with a bootstrap interval over clusters of questions; all from the same draws.

    Args:
        values_QK: finite numbers; for a difference, one of each question (paired).
        clusters_Q: which cluster each question is in, any labels; None: each is its own.
    """
    sums, counts = clustered(values_QK, clusters_Q)
    clusters = len(counts)
    means = resampled_means(sums, counts, seed, resamples)
    lows, highs = interval(means, clusters)
    errors, ps = clustered_error(sums, counts), p_value(means, clusters)
    return [
        Estimate(
            float(mean),
            float(low),
            float(high),
            float(error),
            float(p),
            smallest(error, clusters),
            clusters,
        )
        for mean, low, high, error, p in zip(
            values_QK.mean(0), lows, highs, errors, ps, strict=True
        )
    ]


def clustered(
    values_QK: np.ndarray, clusters_Q: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each quantity in each cluster, (C, K), and the number of its questions, (C,)."""
    if clusters_Q is None:
        return values_QK, np.ones(len(values_QK))
    labels, index = np.unique(np.asarray(clusters_Q), return_inverse=True)
    sums = np.zeros((len(labels), values_QK.shape[1]))
    np.add.at(sums, index, values_QK)
    return sums, np.bincount(index).astype(float)


def resampled_means(
    sums_CK: np.ndarray, counts_C: np.ndarray, seed: int = SEED, resamples: int = RESAMPLES
) -> np.ndarray:
    """Means over whole clusters, drawn with replacement, as many as there are: (R, K).

    scipy.stats.bootstrap draws anew for each quantity and gathers the data of every draw. Here a draw is how often
    each cluster came, and one matrix product gives all quantities.
    """
    rng = np.random.default_rng(seed)
    clusters = len(counts_C)
    columns = np.column_stack([sums_CK, counts_C])
    means = np.empty((resamples, sums_CK.shape[1]))
    chunk = max(1, AT_ONCE // clusters)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(0, clusters, (rows, clusters), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * clusters
        times = np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters)
        found = times.astype(float) @ columns
        means[start : start + rows] = found[:, :-1] / found[:, -1:]
    return means


def interval(
    means_RK: np.ndarray, clusters: int, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """The expanded percentile interval of resampled means: its lower ends, (K,), and its upper ends.

    A plain percentile interval is too short by sqrt((C-1)/C) and by the normal's quantile in place of Student's:
    seen with some ten clusters. Hesterberg takes percentiles further out by just that. NaN with a single cluster.
    """
    if clusters < 2:
        unknown = np.full(means_RK.shape[1:], np.nan)
        return unknown, unknown
    student = special.stdtrit(clusters - 1, 0.5 + level / 2)  # the quantile of Student's t
    tail = special.ndtr(-np.sqrt(clusters / (clusters - 1)) * student)
    low, high = np.quantile(means_RK, [tail, 1 - tail], axis=0)
    return low, high


def p_value(means_RK: np.ndarray, clusters: int) -> np.ndarray:
    """Two-sided p, (K,), of the null hypothesis 0: 1 less the level at which `interval` would just reach 0."""
    if clusters < 2:
        return np.ones(means_RK.shape[1:])
    beyond = np.minimum((means_RK <= 0).sum(0), (means_RK >= 0).sum(0))
    tail = np.minimum((beyond + 1) / (len(means_RK) + 1), 0.5)
    student = -special.ndtri(tail) / np.sqrt(clusters / (clusters - 1))
    return 2 * special.stdtr(clusters - 1, -student)


def clustered_error(sums_CK: np.ndarray, counts_C: np.ndarray) -> np.ndarray:
    """Standard error of the mean of each quantity, (K,), with correlation inside clusters (Miller, section 2.2).

    With a cluster for each question it is s / sqrt(n). NaN with a single cluster.
    """
    clusters = len(counts_C)
    if clusters < 2:
        return np.full(sums_CK.shape[1], np.nan)
    apart = sums_CK - counts_C[:, None] * (sums_CK.sum(0) / counts_C.sum())
    return np.sqrt(clusters / (clusters - 1) * (apart**2).sum(0)) / counts_C.sum()


def smallest(error: float, clusters: int, power: float = POWER, level: float = LEVEL) -> float:
    """The smallest true difference that this standard error lets one see (Miller, section 5). NaN if unknown."""
    if clusters < 2:
        return np.nan
    return float(error * special.stdtrit(clusters - 1, [0.5 + level / 2, power]).sum())


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: questions that changed in one direction against the other."""
    return min(1.0, 2 * float(special.bdtr(min(won, lost), won + lost, 0.5)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: each p, such that all those below alpha together have a false alarm with at most alpha."""
    order = np.argsort(ps)
    scaled = np.asarray(ps, dtype=float)[order] * np.arange(len(ps), 0, -1)
    corrected = np.empty(len(ps))
    corrected[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return corrected.tolist()


def iqm(scores: np.ndarray, axis: int | None = None) -> np.ndarray:
    """The interquartile mean: the mean of what remains without the lowest and the highest quarter."""
    from scipy import stats

    return stats.trim_mean(scores, 0.25, axis=axis)


def resampled_iqm(
    scores_ST: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> np.ndarray:
    """IQM over seeds and tasks, (R,): seeds are drawn with replacement within each task (the strata)."""
    seeds, tasks = scores_ST.shape
    drawn = rng.integers(0, seeds, (resamples, seeds, tasks))
    return iqm(scores_ST[drawn, np.arange(tasks)].reshape(resamples, -1), axis=1)


def seeds_estimate(
    scores_ST: np.ndarray, against_ST: np.ndarray | None = None, seed: int = SEED
) -> Estimate:
    """The IQM of a setting's seeds, or its difference to another setting's.

    Args:
        scores_ST: the mean score of each seed in each task.
        against_ST: of the other setting, which may have another number of seeds; None: no difference.
    """
    rng = np.random.default_rng(seed)
    value, found = float(iqm(scores_ST)), resampled_iqm(scores_ST, rng)
    seeds = len(scores_ST)
    if against_ST is not None:
        value, found = value - float(iqm(against_ST)), found - resampled_iqm(against_ST, rng)
        seeds = min(seeds, len(against_ST))
    low, high = map(float, interval(found, seeds))
    error = float(found.std() * np.sqrt(seeds / max(1, seeds - 1)))
    p = float(p_value(found, seeds))
    return Estimate(value, low, high, error, p, smallest(error, seeds), seeds)


def crossed(
    values_SQ: np.ndarray, level: float = LEVEL, seed: int = SEED, resamples: int = RESAMPLES
) -> Estimate:
    """The mean of what each seed's model has on each question, for other seeds and other questions of their kind.

    Each resample draws the questions anew and adds an error of the seeds. The questions are a bootstrap, less the
    part of their variance that they have in common with the seeds (Owen): it is counted once. The error of the seeds
    is Student's t: a bootstrap of n seeds never leaves the range that they span, and all of them lie on one side of
    the truth once in 2^(n-1) times, which is 25 % with three seeds, where 5 % are meant.

    Args:
        values_SQ: finite numbers; for a difference, one of each seed and question (paired). A single seed: only the
            questions are drawn. A single question stands for a figure without rows: only the seeds count.
        level: of the interval.

    Returns:
        `clusters` is the number of seeds. With one seed and one question nothing is known: NaN.
    """
    values_SQ = np.asarray(values_SQ, dtype=float)
    seeds, questions = values_SQ.shape
    mean = values_SQ.mean()
    by_seed, by_question = values_SQ.mean(1), values_SQ.mean(0)
    if seeds < 2 and questions < 2:
        return Estimate(float(mean), np.nan, np.nan, np.nan, 1.0, np.nan, seeds)
    deviations = np.zeros(resamples)
    of_seeds = of_questions = 0.0  # variances of the mean
    if seeds > 1:
        of_seeds = by_seed.var(ddof=1) / seeds
    if questions > 1:
        of_questions = by_question.var(ddof=1) / questions
        if seeds > 1:
            of_seeds += rounding(values_SQ) ** 2 / 12 / seeds
            rest_SQ = values_SQ - by_seed[:, None] - by_question + mean
            both = (rest_SQ**2).sum() / ((seeds - 1) * (questions - 1)) / values_SQ.size
            of_questions = max(0.0, of_questions - both)
        drawn = resampled_means((by_question - mean)[:, None], np.ones(questions), seed, resamples)
        if by_question.var() > 0:
            deviations = drawn[:, 0] * np.sqrt(of_questions / (by_question.var() / questions))
    freedom = (seeds if seeds > 1 else questions) - 1
    if of_seeds > 0:
        grid = (np.arange(resamples) + 0.5) / resamples  # the whole distribution, in any order
        student = special.stdtrit(freedom, np.random.default_rng(seed).permutation(grid))
        deviations = deviations + np.sqrt(of_seeds) * student
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = mean + np.quantile(deviations, ends, method="hazen")  # on that grid it is exact
    beyond = min((mean + deviations <= 0).mean(), (mean + deviations >= 0).mean())
    error = float(np.sqrt(of_seeds + of_questions))
    seen = (high - low) / 2 + error * special.stdtrit(freedom, POWER)
    return Estimate(
        float(mean), float(low), float(high), error, float(min(1, 2 * beyond)), float(seen), seeds
    )


def rounding(values_SQ: np.ndarray) -> float:
    """The least amount by which the mean of a seed can differ from another's: 1/Q of right and wrong answers.

    Two seeds with as many right answers are known to be alike up to that, and no further (Sheppard's correction).
    """
    steps = np.diff(np.unique(values_SQ))
    return float(steps.min()) / values_SQ.shape[1] if len(steps) else 0.0
