"""What goes wrong in a run without ending it: rules over its metrics, for the run itself and for the monitor.

A rule looks at the metrics of the steps so far, each time that a step brings the metric it is about, and
answers with its figure where something is wrong. Its limit is `lab.alerts.KIND`; null switches it off.
docs/monitor.md says of each what it sees, and where its limit comes from.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from launcher.metrics import read_metrics
from launcher.progress import ACCURACY, named

if TYPE_CHECKING:
    from launcher.halving import Halving

DRIFT = "rollout_corr/kl"
KL = "actor/kl_loss|actor/reward_kl_penalty"  # to the reference policy; there only where a KL term acts
CHANGED = "actor/weights_changed|weights_changed"  # the second without a rollout: SFT, DPO, ...
GRADIENT = "actor/grad_norm|train/grad_norm"
LOSSES = "(actor|critic|train)/(grad_norm|loss|pg_loss|kl_loss)|critic/vf_loss"
REWARD = "critic/score/mean"
CONFIG = Path(__file__).parent.parent / "conf/config.yaml"

RECENT = 5  # steps whose mean is taken: single ones jump
EARLY = 10  # steps before which nothing is said of a trend
SMALLEST = 1e-6  # gradient norm below which weights need not change
GROWN = 10  # a rollout this many times as far away as at the first step is suspicious, and above a tenth of the limit

Series = list[tuple[int, float]]  # (step, value); nan where a step has no number


class History:
    """The metrics of the steps so far, of those that a rule looks at."""

    def __init__(self) -> None:
        self.columns: dict[str, Series] = {}
        self.step = 0
        self.now: set[str] = set()  # what the last step has
        self.names: dict[
            str, tuple[int, str | None]
        ] = {}  # pattern → (how many names then, the name)

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl; steps after it are forgotten: the run has gone back to a checkpoint."""
        self.step, self.now = step, set()
        for name, value in metrics.items():
            if isinstance(value, int | float | None) and wanted(name):
                column = self.columns.setdefault(name, [])
                while column and column[-1][0] >= step:
                    column.pop()
                # verl writes what is no number as null
                column.append((step, math.nan if value is None else float(value)))
                self.now.add(name)

    def named(self, pattern: str) -> str | None:
        """The first metric that matches one of the alternatives, in their order."""
        known, name = self.names.get(pattern, (-1, None))
        if known != len(self.columns):
            name = named(self.columns, pattern)
            self.names[pattern] = len(self.columns), name
        return name

    def series(self, pattern: str) -> Series:
        """Of that metric."""
        return self.columns.get(self.named(pattern) or "", [])


@cache
def wanted(name: str) -> bool:
    """Whether a rule looks at a metric."""
    return any(re.fullmatch(pattern, name) for rule in RULES for pattern in rule.metrics)


def mean(values: Series) -> float:
    """Of the last steps that have a number; nan if none has."""
    return mean_of(values[-RECENT:])


def mean_of(values: Series) -> float:
    numbers = [value for _, value in values if math.isfinite(value)]
    return fmean(numbers) if numbers else math.nan


Judge = Callable[[History, float], float | None]


def above(metric: str, recent: int = RECENT) -> Judge:
    """The mean of the last steps, where it is above the limit."""

    def judge(history: History, limit: float) -> float | None:
        value = mean_of(history.series(metric)[-recent:])
        return value if value > limit else None

    return judge


def near_0(metric: str) -> Judge:
    """The mean of the last steps, where it is nearer to 0 than the limit."""

    def judge(history: History, limit: float) -> float | None:
        value = abs(mean(history.series(metric)))
        return value if value < limit else None

    return judge


def falls(metric: str) -> Judge:
    """The mean of the last steps as a share of the first ones', where that is below the limit."""

    def judge(history: History, limit: float) -> float | None:
        values = history.series(metric)
        first = mean_of(values[:RECENT])
        value = mean(values) / first if first > 0 else math.nan
        return value if value < limit else None

    return judge


def drift(history: History, limit: float) -> float | None:
    """How far the sampler's policy is from the trained one, of the last two steps.

    Above the limit, or above a tenth of it and grown: vLLM and the trainer round differently in bf16, but that
    stays as it is, while a policy that gets no weights is left behind further with every step.
    """
    values = history.series(DRIFT)
    value, first = abs(mean_of(values[-2:])), abs(values[0][1])
    wrong = value > limit or (value > limit / 10 and value > GROWN * first)
    return value if wrong else None


def unchanged(history: History, limit: float) -> float | None:
    """How many of the last steps with a gradient have changed no weight, where it is the limit or more."""
    gradients = dict(history.series(GRADIENT))
    steps = 0
    for step, share in reversed(history.series(CHANGED)):
        if gradients.get(step, math.nan) > SMALLEST:  # false for nan: such a step is skipped
            if share > 0:
                break
            steps += 1
    return steps if steps >= limit else None


def no_numbers(history: History, limit: float) -> float | None:
    """In how many steps the gradient or a loss was no number, where this is one and it is the limit or more."""
    bad: set[int] = set()
    for name, values in history.columns.items():
        if re.fullmatch(LOSSES, name):
            bad.update(step for step, value in values if not math.isfinite(value))
    return len(bad) if history.step in bad and len(bad) >= limit else None


def held_out_falls(history: History, limit: float) -> float | None:
    """How far the accuracy of the last two validations is below the best, where the reward rose since that."""
    values = history.series(ACCURACY)
    best_step, best = max(values, key=lambda at: (at[1], -at[0]))
    fall = best - max(value for _, value in values[-2:])
    rewards = history.series(REWARD)
    before = mean([at for at in rewards if at[0] <= max(best_step, RECENT)])
    return fall if fall > limit and mean(rewards) > before else None


class Rule(NamedTuple):
    """What looks wrong where `judge` answers with a figure."""

    kind: str  # its limit is lab.alerts.KIND
    title: str
    metrics: tuple[str, ...]  # patterns; it is looked at when a step has the first
    after: int  # steps with it before which nothing is said
    judge: Judge
    words: str  # {value}, {limit}; what it means, what to do


def rule(kind, title, metrics, after, judge, words) -> Rule:
    return Rule(
        kind, title, (metrics,) if isinstance(metrics, str) else metrics, after, judge, words
    )


RULES = (
    rule(
        "rollout_drift", "the rollout samples from another policy", DRIFT, 2, drift,
        "KL between the rollout's and the actor's log-probabilities is {value:.2g} a token (limit {limit:g}): vLLM does"
        " not get the trained weights or adapter, or samples otherwise (top_p, top_k, dtype). The gradient is wrong:"
        " stop, and mend the weight sync.",
    ),
    rule(
        "unchanged_weights", "the weights do not change", (CHANGED, GRADIENT), 1, unchanged,
        "{value:.0f} steps with a gradient in a row have changed no weight (limit {limit:g}): is the learning rate 0,"
        " or too small for the weights' dtype (bf16 rounds small updates away)? Are the right weights trainable?",
    ),
    rule(
        "no_numbers", "a gradient or a loss is no number", LOSSES, 1, no_numbers,
        "in {value:.0f} steps so far (limit {limit:g}); verl leaves such an update out. Lower the learning rate, or go"
        " on from an earlier checkpoint; with fp16, take bf16.",
    ),
    rule(
        "ungraded", "answers are not graded", "reward/masked", 3, above("reward/masked"),
        "{value:.0%} of the answers are left out (limit {limit:.0%}). The reason stands beside each in"
        " rollouts/STEP.jsonl: outcome, stopped or error.",
    ),
    rule(
        "same_scores", "groups without spread", "groups/same_score", RECENT, above("groups/same_score"),
        "{value:.0%} of the groups have one score for all their answers (limit {limit:.0%}): their advantage is 0, and"
        " they teach nothing. Take easier or harder prompts, more answers a prompt, or a reward with finer steps.",
    ),
    rule(
        "truncated", "answers are cut off", "response_length/clip_ratio", RECENT, above("response_length/clip_ratio"),
        "{value:.0%} of the answers end at the longest length allowed (limit {limit:.0%}): raise"
        " lab.dataset.max_response_length, or reward shorter ones.",
    ),
    rule(
        "entropy_fall", "entropy has collapsed", "actor/entropy", EARLY, falls("actor/entropy"),
        "entropy is {value:.2g} of what it was at the begin (limit {limit:g}): all answers become the same, and nothing"
        " new is tried. Lower the learning rate, or raise the KL's weight, clip_ratio_high or entropy_coeff.",
    ),
    rule(
        "kl_high", "KL is high", KL, RECENT, above(KL),
        "KL to the reference is {value:.3f} (limit {limit:g}): the policy moves far from where it began. Lower the"
        " learning rate, or raise the weight of the KL.",
    ),
    rule(
        "kl_low", "KL is near 0", KL, 2 * EARLY, near_0(KL),
        "KL to the reference is {value:.1e} (limit {limit:.0e}): the policy hardly changes. Is the learning rate too"
        " low, or is the advantage always 0?",
    ),
    rule(
        "held_out_fall", "reward rises, and held-out accuracy falls", (ACCURACY, REWARD), 3, held_out_falls,
        "the last two validations are {value:.3f} below the best (limit {limit:g}), while the reward of training rose:"
        " it learns the reward's gaps, or the training prompts by heart. Read answers of both, and take the best.",
    ),
    rule(
        "same_answers", "validation answers are all alike", "val-aux/same_answer", 1, above("val-aux/same_answer", 1),
        "{value:.0%} of them are the same text, whatever the question (limit {limit:.0%}): the model has collapsed, or"
        " the prompt or chat template is broken. Read validation/STEP.jsonl.",
    ),
)  # fmt: skip


@dataclass
class Alert:
    """A rule that held."""

    rule: Rule
    limit: float
    first: int  # step
    last: int  # step
    value: float  # at the last

    def words(self, titled: bool = True) -> str:
        """What is wrong, what it means, what to do, and the key of the limit, in one line."""
        words = self.rule.words.format(value=self.value, limit=self.limit)
        title = f"{self.rule.title}: " if titled else ""
        return f"{title}{words} [lab.alerts.{self.rule.kind}]"

    def record(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {"kind": self.rule.kind, "first": self.first, "last": self.last,
                "value": self.value, "limit": self.limit, "title": self.rule.title}  # fmt: skip


class Watch:
    """Looks at the steps of a run as they come.

    Args:
        limits: lab.alerts: kind → limit; None for one that is off.
    """

    def __init__(self, limits: Mapping[str, float | None]):
        self.limits = limits
        self.history = History()
        self.found: dict[str, Alert] = {}  # by kind
        self.holding: set[str] = set()  # kinds that hold now
        self.halving: Halving | None = None  # what may end a job of a sweep
        self.lost: dict[str, Any] | None = None  # what that said then

    @classmethod
    def goes_on(cls, limits: Mapping[str, float | None], file: Path) -> "Watch":
        """One of a run that has these metrics already: it knows them, and says nothing of them."""
        watch = cls(limits)
        for step, metrics in sorted(read_metrics(file).items()):
            watch.history.add(step, metrics)
        return watch

    def step(self, step: int, metrics: Mapping[str, Any]) -> list[Alert]:
        """Look at one line of metrics.jsonl; returns what begins to be wrong with it, each kind once."""
        self.history.add(step, metrics)
        if self.halving and not self.lost:
            self.lost = self.halving.step(step, metrics)
        begun = []
        for rule in RULES:
            limit = self.limits.get(rule.kind)
            if not isinstance(limit, int | float) or not self._is_due(rule):
                continue
            value = rule.judge(self.history, limit)
            if value is None:
                self.holding.discard(rule.kind)
                continue
            self.holding.add(rule.kind)
            if alert := self.found.get(rule.kind):
                alert.first, alert.last, alert.value = min(alert.first, step), step, value
            else:
                self.found[rule.kind] = Alert(rule, limit, step, step, value)
                begun.append(self.found[rule.kind])
        return begun

    def _is_due(self, rule: Rule) -> bool:
        if rule.metrics[0] == LOSSES:  # any of them
            return any(re.fullmatch(LOSSES, name) for name in self.history.now)
        name = self.history.named(rule.metrics[0])
        return name in self.history.now and len(self.history.columns[name]) >= rule.after

    def records(self) -> list[dict[str, Any]]:
        """What was found, first to last, as it stands in run.json."""
        return [alert.record() for alert in sorted(self.found.values(), key=lambda a: a.first)]


@cache
def defaults() -> Mapping[str, float | None]:
    """The limits of a run that names none: those of conf/config.yaml."""
    return dict(OmegaConf.load(CONFIG).lab.alerts)


def summary(records: list[dict[str, Any]]) -> str:
    """What a run says of its alerts at its end; nothing without any."""
    if not records:
        return ""
    lines = [
        f"    {one['title']}: {steps(one['first'], one['last'])},"
        f" {one['value']:.3g} at the last (lab.alerts.{one['kind']}={one['limit']:g})"
        for one in records
    ]
    return "\n".join(["looked wrong in this run (docs/monitor.md says what to do):", *lines])


def steps(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first} to {last}"
