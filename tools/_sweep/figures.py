"""What a sweep finds: of each setting before and after, its difference to the first, and whether one is the best.

Two claims, each with at most 5 % false alarms where all settings are alike:
    a setting differs from the first: the intervals of these differences hold all at once (Bonferroni);
    a setting is the best: it is apart from the first in that way, and from each other one by its own 95 % interval.
    It has to beat all of them, so nothing is corrected there (Berger, Technometrics 24, 1982: intersection-union).
Intervals: tools/_compare/statistics.py, `crossed`. Sources: Miller, arXiv:2411.00640; Agarwal et al., arXiv:2108.13264.
"""

from typing import NamedTuple

import numpy as np

from launcher.judged import is_accuracy
from preflight.mistakes import Mistake
from preflight.tables import NUMBER
from tools._compare import statistics
from tools._compare.figures import ALPHA, title
from tools._compare.pairing import Paired, paired
from tools._compare.reading import Answers
from tools._compare.statistics import Estimate
from tools._sweep.reading import OK, Job, Sweep

FEW_SEEDS = 5
ENOUGH = 0.5  # of a job's questions, which all have: fewer mean that each seed was asked others
DRAWN = (
    10_000_000  # questions in all resamples of a figure: of thousands fewer resamples tell as much
)
FEWEST = 2000  # resamples, then


class Setting(NamedTuple):
    """What was varied, without the seed, and all its jobs."""

    words: dict[str, str]
    name: str
    jobs: list[Job]
    counted: list[
        Job
    ]  # that ended well, with a figure; none if one was stopped early: the others are no fair sample
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None

    @property
    def whole(self) -> bool:
        """Whether all its jobs count."""
        return len(self.counted) == len(self.jobs)

    @property
    def was_stopped(self) -> bool:
        """Whether one of its jobs was stopped early: nothing is claimed of it."""
        return any(job.was_stopped for job in self.jobs)


class Pair(NamedTuple):
    """The second setting less the first, over the seeds that both have."""

    difference: Estimate
    seeds: int
    questions: int  # 1: without rows
    left_out: int  # questions that not all of their jobs have a graded answer to


class Found(NamedTuple):
    """Everything that is shown."""

    sweep: Sweep
    settings: list[Setting]
    against: list[Pair | None]  # of each setting, against the first that has a figure
    first: int | None
    best: int | None
    level: float  # of the intervals of `against`
    verdicts: list[str]
    notes: list[str]

    @property
    def metric(self) -> str:
        """What it is called."""
        return title(self.sweep.metric or "")


def short(keys: list[str]) -> dict[str, str]:
    """Each key by its last part, where that is not the last part of another one."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: end if last.count(end) == 1 else key for key, end in zip(keys, last, strict=True)}


def name_of(words: dict[str, str]) -> str:
    """A setting in a sentence: a name by itself, if nothing else was varied."""
    keys = short(list(words))
    if len(words) == 1 and not NUMBER.fullmatch(value := next(iter(words.values()))):
        return value
    return ", ".join(f"{keys[key]}={value}" for key, value in words.items()) or "all jobs"


def find(sweep: Sweep, resamples: int = statistics.RESAMPLES) -> Found:
    """All figures of a sweep."""
    grouped: dict[tuple, list[Job]] = {}
    for job in sweep.jobs:
        grouped.setdefault(tuple(job.setting.items()), []).append(job)
    settings = [setting(sweep, jobs, resamples) for jobs in grouped.values()]
    there = [i for i, one in enumerate(settings) if one.counted]
    stopped = sum(one.was_stopped for one in settings)  # they were looked at, too
    level = 1 - ALPHA / max(1, len(there) + stopped - 1)
    first = there[0] if there else None
    against: list[Pair | None] = [None] * len(settings)
    for i in there[1:] if sweep.alike and not sweep.searches else []:
        against[i] = pair(sweep, settings[first], settings[i], level, resamples)
    best = winner(sweep, settings, against, there, resamples)
    found = Found(sweep, settings, against, first, best, level, [], [])
    return found._replace(verdicts=verdicts(found, there), notes=notes(found, there))


def setting(sweep: Sweep, jobs: list[Job], resamples: int) -> Setting:
    """The figures of one setting."""
    counted = [job for job in jobs if job.counts]
    counted = [] if any(job.was_stopped for job in jobs) else counted
    words = jobs[0].setting
    if not counted:
        return Setting(words, name_of(words), jobs, [], None, None, None)
    has_before = all(job.before is not None for job in counted)
    before = values(sweep, counted, 0) if has_before else None
    after = values(sweep, counted, 1)
    change = values(sweep, counted, 1, counted, 0) if has_before else None
    made = [v if v is None else estimate(v[0], statistics.LEVEL, resamples)
            for v in (before, after, change)]  # fmt: skip
    return Setting(words, name_of(words), jobs, counted, *made)


def estimate(values_SQ: np.ndarray | None, level: float, resamples: int) -> Estimate | None:
    """The mean with its interval; None without values."""
    if values_SQ is None:
        return None
    few = max(FEWEST, DRAWN // values_SQ.shape[1])
    return statistics.crossed(values_SQ, level, resamples=min(resamples, few))


def values(
    sweep: Sweep, jobs: list[Job], at: int, less: list[Job] | None = None, less_at: int = 1
) -> tuple[np.ndarray | None, int]:
    """The metric of each job on each question, (S, Q), and the number of questions that were left out.

    Args:
        at: 0 before, 1 after.
        less: jobs whose values are subtracted, one of each in `jobs`.

    There is one column, a job's mean, without rows (the metric that it has logged), and where each seed was asked
    other questions: then what other questions would bring is in the spread of the seeds. None where jobs that are
    subtracted have no question in common.
    """
    if not sweep.by_rows:
        plain = np.array([[(job.before, job.after)[at]] for job in jobs], dtype=float)
        if less:
            plain = plain - np.array([[(job.before, job.after)[less_at]] for job in less])
        return plain, 0
    groups = [[job.rows[at]] for job in jobs]
    for group, job in zip(groups, less or [], strict=False):
        group.append(job.rows[less_at])
    together = shared([side for group in groups for side in group], sweep.metric)
    fewest = min(len(questions(side)) for group in groups for side in group)
    if together and (len(jobs) < 2 or len(together.keys) >= fewest * ENOUGH):
        sides_SQ = together.values.T.reshape(len(jobs), -1, len(together.keys))
        return difference(sides_SQ.swapaxes(0, 1)), together.others + together.ungraded
    each = [shared(group, sweep.metric) for group in groups]
    if not all(each):
        return None, 0
    means = [[difference(one.values.T).mean()] for one in each]
    return np.array(means), sum(one.others + one.ungraded for one in each)


def questions(side: Answers) -> set[tuple[str, str]]:
    """What a job was asked, several answers to a question or not."""
    return {(answer.prompt, answer.truth) for answer in side.rows}


def shared(sides: list[Answers], metric: str) -> Paired | None:
    """The questions that all sides were asked; None if there are none."""
    try:
        return paired(sides, metric)
    except Mistake:
        return None


def difference(sides: np.ndarray) -> np.ndarray:
    """The first of one or two, less the second."""
    return sides[0] - sides[1] if len(sides) > 1 else sides[0]


def pair(sweep: Sweep, a: Setting, b: Setting, level: float, resamples: int) -> Pair | None:
    """How far the second setting is from the first; None without a seed, or a question, in common."""
    of_a, of_b = ({job.seed: job for job in one.counted} for one in (a, b))
    seeds = [seed for seed in of_a if seed in of_b]
    if not seeds:
        return None
    values_SQ, left_out = values(sweep, [of_b[s] for s in seeds], 1, [of_a[s] for s in seeds])
    if values_SQ is None:
        return None
    difference = estimate(values_SQ, level, resamples)
    return Pair(difference, len(seeds), values_SQ.shape[1], left_out)


def better(sweep: Sweep, d: Estimate) -> bool:
    """Whether a difference says that the second one is better, and not by chance."""
    return d.high < 0 if sweep.less_is_better else d.low > 0


def winner(
    sweep: Sweep, settings: list[Setting], against: list[Pair | None], there: list[int], resamples: int
) -> int | None:  # fmt: skip
    """The setting that is better than each other one; None where seeds and questions leave that open."""
    if not sweep.alike or not sweep.seeds_varied or len(there) < 2 or sweep.searches:
        return None
    sign = -1 if sweep.less_is_better else 1
    first = there[0]
    leader = max(there, key=lambda i: sign * settings[i].after.value)
    if not settings[leader].whole:
        return None
    for i in there:
        if i == leader:
            continue
        if leader == first:
            found, turned = against[i], True  # corrected
        elif i == first:
            found, turned = against[leader], False
        else:
            found = pair(sweep, settings[i], settings[leader], statistics.LEVEL, resamples)
            turned = False
        if found is None or found.seeds < 2:
            return None
        d = found.difference
        if not better(sweep, d._replace(low=-d.high, high=-d.low) if turned else d):
            return None
    return leader


def amount(d: Estimate) -> str:
    """How much, without a sign: the words say in which direction."""
    low, high = sorted((abs(d.low), abs(d.high)))
    return f"{abs(d.value):.3f} ({low:.3f} to {high:.3f})"


def verdicts(found: Found, there: list[int]) -> list[str]:
    """The finding in plain words."""
    sweep, settings = found.sweep, found.settings
    if not there:
        return ["no figure of a job that has ended well: there is nothing to compare"]
    if sweep.searches:
        return chosen(found, there)
    if len(there) == 1:
        return alone(found, settings[there[0]])
    if not sweep.alike:
        return ["no winner: the settings are graded by different rewards or on different questions, so these figures"
                " are no measure of each other. `python -m tools.compare JOB JOB dataset=D reward=R` asks their models"
                " the same."]  # fmt: skip
    base, said = settings[found.first].name, []
    one_seed = all(pair is None or pair.seeds < 2 for pair in found.against)
    apart = [i for i in there if (p := found.against[i]) and p.difference.apart]
    for i in apart:
        d = found.against[i].difference
        word = "better" if (d.value < 0) == sweep.less_is_better else "worse"
        if one_seed:
            said.append(f"the model of {settings[i].name} is {word} than that of {base} by {amount(d)}"
                        " on these questions")  # fmt: skip
        else:
            said.append(f"{settings[i].name} is {word} than {base} by {amount(d)}")
    if found.best is not None:
        others = "each other setting"
        if any(one.was_stopped for one in settings):
            others += " that was run to its end"
        return [*said, f"best: {settings[found.best].name}, better than {others}"]
    if one_seed:
        return [*said, "no winner: the seed was not varied, and another seed could turn it round. Several seeds can"
                " tell: lab.seed=range(0,5)"]  # fmt: skip
    return [*said, f"no winner: {why_none(found, there, apart)}"]


def alone(found: Found, one: Setting) -> list[str]:
    """The verdict of the only setting with figures: whether it has learned."""
    of = f"{one.name}: " if len(found.settings) > 1 else ""
    if one.change is None or np.isnan(one.change.low):
        return [f"{of}there is nothing to compare it with"]
    if not one.change.apart:
        return [f"{of}no change of {found.metric} beyond chance"]
    word = "better" if (one.change.value < 0) == found.sweep.less_is_better else "worse"
    seeds = len(one.counted)
    where = f"{seeds} seeds" if found.sweep.seeds_varied and seeds > 1 else "these questions"
    return [f"{of}{word} than before by {amount(one.change)}, over {where}"]


def chosen(found: Found, there: list[int]) -> list[str]:
    """What a search found: the highest of many is partly chance, so it is no winner on the seeds that chose it."""
    whole = [i for i in there if found.settings[i].whole]
    if not whole:
        return ["no trial has been run to its end: there is nothing to choose from"]
    found_best = found.settings[leading(found, whole)]
    return [f"chosen: {found_best.name}, {found.metric} {found_best.after.value:.3f}, the best mean of {len(whole)}"
            f" settings. The best of many is partly luck, and this figure is too good: it is no winner before it is"
            " compared on other seeds"]  # fmt: skip


def leading(found: Found, there: list[int]) -> int:
    """The setting with the best mean."""
    sign = -1 if found.sweep.less_is_better else 1
    return max(there, key=lambda i: sign * found.settings[i].after.value)


def why_none(found: Found, there: list[int], apart: list[int]) -> str:
    """Why no setting is the best."""
    settings, leader = found.settings, leading(found, there)
    if not settings[leader].whole:
        return (f"{settings[leader].name} has the best mean, and not all of its jobs have ended well"
                f" ({len(settings[leader].counted)} of {len(settings[leader].jobs)})")  # fmt: skip
    if apart:
        return "between those with the best means, the difference is within chance"
    seen = [p.difference.smallest for i in there if (p := found.against[i])]
    seen = [smallest for smallest in seen if smallest > 0]
    could = f" (a difference of about {min(seen):.2g} would show)" if seen else ""
    return (
        f"no setting is further from {settings[found.first].name} than chance would bring it{could}"
    )


def notes(found: Found, there: list[int]) -> list[str]:
    """How it was found, and what to be careful with, a sentence each."""
    sweep, said = found.sweep, []
    pairs = [pair for pair in found.against if pair]
    counts = {len(one.counted) for one in found.settings if one.counted}
    seeds = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{min(counts, default=0)}"
    if sweep.metric is None and any(job.state == OK for job in sweep.jobs):
        said.append("the jobs have no metric in common: each is judged by another one")
    if sweep.metric and not sweep.by_rows and not sweep.metric.startswith("val"):
        said.append("no validation: the figures are those of the last step of training, of sampled answers"
                    " (trainer.test_freq=N validates every N steps)")  # fmt: skip
    if there and sweep.seeds_varied:
        what = (
            "seeds and questions"
            if sweep.by_rows
            else "seeds (without the rows of a validation, these alone)"
        )
        said.append(f"95 % intervals, {seeds} seeds: they count what other {what} would bring")
    elif there and sweep.by_rows:
        said.append("95 % intervals: they count what other questions would bring, and no other seeds, since the seed"
                    " was not varied")  # fmt: skip
    if pairs:
        together = f"; these {len(pairs)} hold all at once" if len(pairs) > 1 else ""
        base, what = found.settings[found.first].name, " and question" if sweep.by_rows else ""
        said.append(f"differences to {base} are of the same seed{what}{together}")
    if sweep.seeds_varied and counts and min(counts) < FEW_SEEDS:
        said.append(f"{min(counts)} seeds are few: only large differences show")
    if sweep.by_rows and any(pair.questions == 1 and pair.seeds > 1 for pair in pairs):
        said.append("each seed was asked other questions (lab.dataset.val_max_samples draws them by the seed): what"
                    " other questions would bring is in the spread of the seeds")  # fmt: skip
    if left := max((pair.left_out for pair in pairs), default=0):
        said.append(
            f"up to {left} questions of a pair left out: some job has no graded answer to them"
        )
    if stopped := sum(one.was_stopped for one in found.settings):
        many = f"{stopped} settings were" if stopped > 1 else "a setting was"
        said.append(f"{many} stopped early (lab.sweep.halving): no figure, and no claim")
    steps = {job.steps for one in found.settings for job in one.counted}
    if len(steps) > 1:
        said.append(f"the jobs have made {min(steps)} to {max(steps)} steps: that differs as well")
    if is_accuracy(sweep.metric) and any(
        k.startswith(("lab.reward.", "reward.")) for k in sweep.varied
    ):
        said.append("the reward's options differ: right is what each one calls right")
    return said
