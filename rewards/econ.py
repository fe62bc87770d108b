"""`reward=econ`: a household's decision as strict JSON, {"work": 0..1, "consumption": 0..1}; [-1, 1].

Work and consumption as propensities: EconAgent, arXiv:2310.10436. The annual part asks for an economy
that obeys Okun's law (1962) and the Phillips curve (Economica, 1958).

State, as a JSON object in ground_truth, or field by field in extra_info (ground_truth wins):
  employed             true or false, 1 or 0
  wealth, dpi          money: savings, and disposable income (after taxes and transfers) in a year
  buffer_ratio         (wealth + dpi) / dpi within 0 to 10; worked out from these two if it isn't given,
                       with dpi <= 0 as 10 if there is any money, else 0
  unemployment_rate    a share, 0.05 for 5 %
  gdp_growth, wage_inflation, price_inflation   percent a year, 2.0 for 2 %
  r_okun, r_phillips   correlations over the last years: of the change of unemployment with growth, and
                       of unemployment with wage inflation
  u12                  mean unemployment in the last year, a share
Macro values may be absent (null or NaN too): those that are there share the weights. With neither of the
correlations there is no annual part, and the weights alone_* hold; without any macro value no guard.

score: annual_weight * annual + guard_weight * guard + micro_weight * micro + reg_weight * reg, clipped.
reg is -extreme_penalty for a consumption below 0.05 or above 0.95. No decision: -1.
outcome: ok, no_json (also: a name given twice, NaN), missing, not_a_number, out_of_range, and in mode
strict prose: anything but white space before or after the object. Text up to </think> doesn't count.
bad_state: a row without employed or buffer, or with an impossible value; NaN, masked.
Parts: micro, guard, annual, reg, valid_json (0 for no_json and prose); work and consumption are NaN,
and so left out of their mean and deviation, where there is no decision.
guard and annual depend on the row alone, so they are the same for all answers to a prompt, and group
baselines (GRPO, RLOO) cancel them. What teaches is micro, reg and the -1: watch these.
Degenerate: the constant {"work": 0.7, "consumption": 0.6} has a mean micro of 0.58 on the simulated
households (the best: 1). Just outside of work's band counts 0, more than its edge, -1 (as published).
Not covered: a decision behind another {...}, or inside of one.
"""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from rewards import _options
from rewards._econ_decision import decision_of
from rewards._econ_state import state_of
from rewards._rows import RowError, ground_truth_of, info_of

GUARD = {  # low, high, weight
    "unemployment_rate": (0.02, 0.20, 0.40),
    "gdp_growth": (-5.0, 10.0, 0.30),
    "wage_inflation": (-3.4, 4.5, 0.20),
    "price_inflation": (-5.5, 8.8, 0.10),
}
WORK_REACH = 0.15  # of the band, to either side of the best
TOLERANCE = 0.25  # of a correlation: so far from the target it counts 0
NAN_PARTS = ("score", "work", "consumption", "micro", "guard", "annual", "reg", "valid_json")

Share = Annotated[float, Field(ge=0, le=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]


class Options(_options.Options):
    mode: Literal["strict", "lenient"] = "strict"  # lenient: the first {...}, whatever is around it
    annual_weight: Share = 0.45
    guard_weight: Share = 0.30
    micro_weight: Share = 0.20
    alone_guard_weight: Share = 0.65
    alone_micro_weight: Share = 0.30
    reg_weight: Share = 0.05
    work_share: Share = 0.3  # of micro, for the employed; the rest is of consumption
    extreme_penalty: Share = 0.5
    okun_target: Correlation = -0.894
    phillips_target: Correlation = -0.676


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **options) -> dict:
    """Score one answer. ValueError for a bad option; nothing else, whatever the answer says."""
    o = Options.of(options)
    state, fault = state_of(ground_truth, extra_info)
    report: dict[str, Any] = {**dict.fromkeys(NAN_PARTS, math.nan), "masked": float(bool(fault))}
    if fault:
        return report | {"outcome": "bad_state"}
    annual = annual_of(state, o.okun_target, o.phillips_target)
    report |= {"annual": annual, "guard": guard_of(state)}
    outcome, work, consumption = decision_of(solution_str, o.mode)
    report |= {"valid_json": float(outcome not in ("no_json", "prose")), "outcome": outcome}
    if outcome != "ok":
        return report | {"score": -1.0}
    report |= {"work": work, "consumption": consumption}
    report["micro"] = micro_of(state, work, consumption, o.work_share)
    report["reg"] = -o.extreme_penalty if consumption < 0.05 or consumption > 0.95 else 0.0
    if math.isnan(annual):
        weights = {"guard": o.alone_guard_weight, "micro": o.alone_micro_weight}
    else:
        weights = {"annual": o.annual_weight, "guard": o.guard_weight, "micro": o.micro_weight}
    weights["reg"] = o.reg_weight
    score = sum(weights[part] * report[part] for part in weights if not math.isnan(report[part]))
    return report | {"score": max(-1.0, min(1.0, score))}


def band(x: float, low: float, high: float) -> float:
    """1 in the middle, -1 at the edges; outside from 0 down to -1 with the distance, as published."""
    if low <= x <= high:
        half = (high - low) / 2
        return 1 - 2 * abs(x - (low + half)) / half
    return -min(max(low - x, x - high) / (high - low), 1.0)


def best(state: Mapping) -> tuple[float, float]:
    """The best (work, consumption) for the buffer ratio: .95 - .08 br, and .25 + .5 br / (1 + br)."""
    br = state["buffer_ratio"]
    work = max(0.4, min(0.95, 0.95 - 0.08 * min(br, 6)))
    return work, max(0.10, min(0.85, 0.25 + 0.5 * (1 - 1 / (1 + br))))


def micro_of(state: Mapping, work: float, consumption: float, work_share: float) -> float:
    """How near the decision is to the best one; of the unemployed, consumption alone."""
    best_work, best_consumption = best(state)
    spending = 1 - 2 * abs(consumption - best_consumption)
    if not state["employed"]:
        return spending
    working = band(work, best_work - WORK_REACH, best_work + WORK_REACH)
    return work_share * working + (1 - work_share) * spending


def guard_of(state: Mapping) -> float:
    """Whether the macro values are within bounds."""
    present = [(w, band(state[n], *ends)) for n, (*ends, w) in GUARD.items() if n in state]
    return _mean(present)


def annual_of(state: Mapping, okun_target: float, phillips_target: float) -> float:
    """Whether the economy of the last years obeys Okun's law and the Phillips curve."""
    targets = {"r_okun": okun_target, "r_phillips": phillips_target}
    present = [
        (0.4, max(-1.0, 1 - abs(state[name] - target) / TOLERANCE))
        for name, target in targets.items()
        if name in state
    ]
    if present and "u12" in state:
        present.append((0.2, band(state["u12"], 0.04, 0.15)))
    return _mean(present)


def _mean(present: list[tuple[float, float]]) -> float:
    """Of (weight, value): what is absent leaves its weight to the others."""
    total = sum(weight for weight, _ in present)
    return sum(weight * value for weight, value in present) / total if present else math.nan


def row_faults(rows, **options) -> list[dict]:
    """Rows that can't be graded: {"index", "outcome", "message"} in row order."""
    Options.of(options)
    faults = []
    for index, row in enumerate(rows):
        try:
            reference = ground_truth_of(row)
        except RowError:  # the state may be in extra_info
            reference = None
        if fault := state_of(reference, info_of(row))[1]:
            faults.append({"index": index, "outcome": "bad_state", "message": fault})
    return faults


def bars(**options) -> dict:
    """reference: what the best decision earns in the worst economy."""
    o = Options.of(options)
    worst = o.micro_weight - o.guard_weight - o.annual_weight
    worst = max(-1.0, min(worst, o.alone_micro_weight - o.alone_guard_weight))
    return {"range": (-1.0, 1.0), "reference": worst, "empty": -1.0}


def reference_answer(ground_truth, extra_info=None) -> str | None:
    """The decision with the highest score; None for a row that can't be graded."""
    state, fault = state_of(ground_truth, extra_info)
    return None if fault else json.dumps({"work": best(state)[0], "consumption": best(state)[1]})
