"""The parts of `reward=econ` but for its penalty: each in [-1, 1], or NaN where the row has no data for it."""

import math
from collections.abc import Mapping

GUARD = {  # low, high, weight
    "unemployment_rate": (0.02, 0.20, 0.40),
    "gdp_growth": (-5.0, 10.0, 0.30),
    "wage_inflation": (-3.4, 4.5, 0.20),
    "price_inflation": (-5.5, 8.8, 0.10),
}
WORK_REACH = 0.15  # of the band, to either side of the best
TOLERANCE = 0.25  # of a correlation: so far from the target it counts 0


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
