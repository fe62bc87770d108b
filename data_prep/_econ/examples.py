"""Which decisions are good, and which examples stand beside a prompt.

Good: of the employed the best 30 %, of the unemployed those above their 40th percentile, and of the
group that is then too large the worst are left out until 15 % are unemployed. Each split on its own.
Examples: the nearest of the training split by standardised features, with one employed and one
unemployed household at least. A state that is the same in all features is never an example, so no row
is its own, nor its copy. They are looked for among up to 20000 rows, drawn once, half of either kind
where there are enough: memory and time don't grow with the square of the rows.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from data_prep._econ.rows import MACRO, as_text, decision, ground_truth
from data_prep._scoring import run_rewards
from preflight.mistakes import Mistake

BEST_EMPLOYED, BEST_UNEMPLOYED, UNEMPLOYED = 0.30, 0.60, 0.15
POOL = 20_000
# Only what the decision moves: a good year for the economy makes no good decision.
OF_DECISION = ("annual_weight=0", "guard_weight=0", "alone_guard_weight=0", "micro_weight=0.3")


def rewarded(states: Iterable[Mapping]) -> list[float]:
    """Of each state with a decision, its score by `reward=econ`; NaN if it has none."""
    with tempfile.TemporaryDirectory() as folder:
        rows, scored = Path(folder) / "rows.jsonl", Path(folder) / "scored.jsonl"
        with rows.open("w") as file:
            for state in states:
                row = {"response": decision(state), "ground_truth": ground_truth(state)}
                file.write(json.dumps(row) + "\n")
        run_rewards("econ", "--file", rows, "--out", scored, "--set", *OF_DECISION)
        with scored.open() as file:
            scores = [json.loads(line)["result"]["score"] for line in file]
    return [math.nan if score is None else score for score in scores]


def good(scores: np.ndarray, employed: np.ndarray) -> np.ndarray:
    """The indices of the good decisions; NaN is never good."""
    best = np.argsort(-scores, kind="stable")
    best = best[~np.isnan(scores[best])]
    working, idle = best[employed[best]], best[~employed[best]]
    working = working[: math.ceil(BEST_EMPLOYED * len(working))]
    idle = idle[: math.ceil(BEST_UNEMPLOYED * len(idle))]
    if len(working) and len(idle):  # else there is nothing to balance
        odds, present = UNEMPLOYED / (1 - UNEMPLOYED), len(working)
        working = working[: max(1, round(len(idle) / odds))]
        idle = idle[: max(1, round(present * odds))]
    return np.concatenate([working, idle])


def pool(employed: np.ndarray, seed: int) -> np.ndarray:
    """The indices of the decisions among which examples are looked for. Mistake if a kind is missing."""
    rng, drawn = np.random.default_rng(seed), []
    for kind, of_kind in (("employed", employed), ("unemployed", ~employed)):
        if not of_kind.any():
            raise Mistake(f"--few-shot needs decisions of the {kind} in the training split")
        drawn.append(rng.permutation(np.flatnonzero(of_kind))[: POOL // 2])
    return np.concatenate(drawn)


def features(state: Mapping) -> list[float]:
    """What makes two states alike; NaN where a value is absent.

    arcsinh grows like a logarithm, for debts too, so that no giant crowds the others together.
    """
    values = [*(state[name] / 1000 for name in ("wealth", "dpi")), *map(state.get, MACRO)]
    return [math.nan if value is None else math.asinh(value) for value in values]


class Examples:
    """Decisions of the training split, to be found by their likeness."""

    def __init__(self, states: list[Mapping]):
        self.states = states
        self.employed = np.array([state["employed"] for state in states])
        raw = np.ma.masked_invalid([features(state) for state in states])
        self.mean = raw.mean(0).filled(0)  # of a feature that is always absent, 0
        spread = raw.std(0).filled(0)
        self.spread = np.where(spread > 0, spread, 1)
        self.points = self._place(raw.filled(math.nan))

    def _place(self, raw: np.ndarray) -> np.ndarray:
        """Standardised features; an absent value stands at the mean."""
        return np.nan_to_num((raw - self.mean) / self.spread, nan=0.0)

    def near(self, state: Mapping, k: int) -> list[tuple[str, str]]:
        """(state, decision) as texts of the k nearest, the nearest last; fewer if there aren't as many."""
        point = self._place(np.array(features(state)))
        distance = ((self.points - point) ** 2).sum(1)
        same = (distance < 1e-12) & (self.employed == state["employed"])
        order = np.argsort(np.where(same, np.inf, distance), kind="stable")
        order = order[: len(order) - same.sum()]
        chosen = list(order[:k])
        kinds = {bool(self.employed[i]) for i in chosen}
        if len(kinds) == 1:
            other = order[self.employed[order] != kinds.pop()]
            chosen[-1:] = other[:1] if len(other) else chosen[-1:]
        found = [self.states[i] for i in reversed(chosen)]
        return [(as_text(one), decision(one)) for one in found]
