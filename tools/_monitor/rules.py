"""What looks wrong in a run: one table of rules over its metrics, for whoever raises an alarm.

A rule looks at the series of one metric, the first that is there of its pattern (as launcher.progress.named
reads it), and answers whether it holds now. Nothing here reads a file or knows of a page.
"""

import math
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import NamedTuple

from launcher.progress import named

KL = "actor/kl_loss|actor/reward_kl_penalty"  # to the reference policy; actor/ppo_kl is to the last one
SAME_SCORES = "groups/same_score"  # made from rollouts/STEP.jsonl: see answers.py
RECENT = 5  # steps whose mean is taken: single ones jump
EARLY = 10  # steps before which nothing is said of a trend

Values = list[float]  # of one metric, by step


class Rule(NamedTuple):
    """What looks wrong if `holds`."""

    name: str
    metric: str  # a pattern
    holds: Callable[[Values], bool]
    words: str  # what it may mean; {value} is the mean of the last steps


class Finding(NamedTuple):
    """A rule that holds for a run."""

    rule: str
    metric: str | None
    value: float | None
    words: str


def recent(values: Values) -> float:
    """The mean of the last steps; not a number if one of them is none."""
    return fmean(values[-RECENT:])


def above(limit: float) -> Callable[[Values], bool]:
    """The last steps are above the limit."""
    return lambda values: recent(values) > limit


def stays_below(limit: float) -> Callable[[Values], bool]:
    """Some steps are made, and the last ones are still below the limit."""
    return lambda values: len(values) > EARLY and recent(values) < limit


def falls_below(share: float) -> Callable[[Values], bool]:
    """The last steps are below this share of the first ones."""
    return lambda values: (
        len(values) > EARLY
        and fmean(values[:RECENT]) > 0
        and recent(values) < share * fmean(values[:RECENT])
    )


def is_no_number(values: Values) -> bool:
    """The last step is nan or infinite."""
    return not math.isfinite(values[-1])


RULES = (
    Rule(
        "KL is high", KL, above(0.1),
        "KL to the reference is {value:.3f}, above 0.1: the policy moves far from where it began. Lower the learning"
        " rate, or raise the weight of the KL.",
    ),
    Rule(
        "KL is near 0", KL, stays_below(1e-4),
        "KL to the reference is {value:.1e} after more than ten steps: the policy hardly changes. Is the learning rate"
        " too low, or is the advantage always 0?",
    ),
    Rule(
        "entropy has collapsed", "actor/entropy", falls_below(0.1),
        "entropy is {value:.3g}, a tenth of what it was: all answers become the same, and nothing new is tried.",
    ),
    Rule(
        "groups without spread", SAME_SCORES, above(0.8),
        "{value:.0%} of the groups have the same score for all their answers: their advantage is 0, and they teach"
        " nothing. Take easier or harder prompts, or more answers a prompt.",
    ),
    Rule(
        "rewards without spread", "reward/score/std", stays_below(1e-6),
        "all answers of a step have the same score: there is nothing to learn from.",
    ),
    Rule(
        "answers are cut off", "response_length/clip_ratio", above(0.2),
        "{value:.0%} of the answers end at the longest length allowed: raise lab.dataset.max_response_length, or"
        " reward shorter ones.",
    ),
    Rule(
        "answers are masked", "reward/masked", above(0.05),
        "{value:.0%} of the answers could not be graded and are left out. The reason stands beside each in its row:"
        " outcome, stopped or error.",
    ),
    Rule(
        "a loss is no number", "actor/grad_norm|actor/pg_loss|train/loss|train/grad_norm", is_no_number,
        "the last value is {value}: lower the learning rate, or go on from an earlier checkpoint.",
    ),
)  # fmt: skip


def findings(names: Iterable[str], series: Callable[[str], Values]) -> list[Finding]:
    """The rules that hold.

    Args:
        names: the metrics that there are.
        series: the values of one of them, first step to last.
    """
    found, names = [], list(names)
    for rule in RULES:
        name = named(names, rule.metric)
        values = series(name) if name else []
        if values and rule.holds(values):
            value = values[-1] if rule.holds is is_no_number else recent(values)
            found.append(Finding(rule.name, name, value, rule.words.format(value=value)))
    return found
