"""The household and its economy, from a row of the data; `rewards.econ` says what the fields mean."""

import json
import math
from collections.abc import Mapping
from typing import Any

ANY, SHARE, CORRELATION = (-math.inf, math.inf), (0, 1), (-1, 1)
FIELDS = {
    "employed": SHARE,
    **dict.fromkeys(("wealth", "dpi", "buffer_ratio"), ANY),
    **dict.fromkeys(("unemployment_rate", "u12"), SHARE),
    **dict.fromkeys(("gdp_growth", "wage_inflation", "price_inflation"), ANY),
    **dict.fromkeys(("r_okun", "r_phillips"), CORRELATION),
}
BUFFER_MAX = 10.0
MISSING = ("", "nan", "none", "null", "<na>")


class Fault(ValueError):
    """A row that can't be graded; the text says which field and why."""


def state_of(ground_truth: object, extra_info: object) -> tuple[dict[str, float], str]:
    """(the fields that are there, as finite numbers, with buffer_ratio in [0, 10]; "") or ({}, why not)."""
    try:
        sources = [given(ground_truth), extra_info if isinstance(extra_info, Mapping) else {}]
        state = {}
        for name, limits in FIELDS.items():
            values = (number(name, source.get(name), *limits) for source in sources)
            value = next((value for value in values if value is not None), None)
            if value is not None:
                state[name] = value
        if state.get("employed") not in (0, 1):
            raise Fault("employed is missing, or neither true nor false")
        state["buffer_ratio"] = buffer_ratio(state)
    except Fault as fault:
        return {}, str(fault)
    return state, ""


def given(ground_truth: Any) -> Mapping:
    """The fields in ground_truth; none if it is empty, or what pandas writes for a value that is missing."""
    if getattr(ground_truth, "shape", None) == ():  # one value in an array
        ground_truth = ground_truth.item()
    if ground_truth is None or (isinstance(ground_truth, float) and math.isnan(ground_truth)):
        return {}
    if isinstance(ground_truth, str):
        if ground_truth.strip().casefold() in MISSING:
            return {}
        try:
            ground_truth = json.loads(ground_truth)
        except (ValueError, RecursionError) as error:
            raise Fault(f"ground_truth is no JSON: {error}") from None
    if not isinstance(ground_truth, Mapping):
        raise Fault("ground_truth is no JSON object")
    return ground_truth


def number(name: str, value: Any, low: float, high: float) -> float | None:
    """A number within its limits; None if it is absent, which pandas writes as NaN."""
    if value is None:
        return None
    if isinstance(value, str | bytes):
        raise Fault(f"{name} is a text: {value[:40]!r}")
    try:
        value = float(value)  # numpy's numbers too
    except (TypeError, ValueError):
        raise Fault(f"{name} is of type {type(value).__name__}, no number") from None
    except OverflowError:  # an integer of 400 digits
        value = math.inf
    if math.isnan(value):
        return None
    if math.isinf(value) or not low <= value <= high:
        hint = ", a share such as 0.05 for 5 %" if (low, high) == SHARE else ""
        raise Fault(f"{name} is {value}, not from {low} to {high}{hint}")
    return value


def buffer_ratio(state: Mapping) -> float:
    """(wealth + dpi) / dpi within [0, 10]; its limit where there is no disposable income."""
    ratio = state.get("buffer_ratio")
    if ratio is None:
        missing = [name for name in ("wealth", "dpi") if name not in state]
        if missing:
            raise Fault(f"{' and '.join(missing)} missing, and no buffer_ratio")
        money, dpi = state["wealth"] + state["dpi"], state["dpi"]
        ratio = money / dpi if dpi > 0 else math.copysign(math.inf, money) if money else 0.0
    return max(0.0, min(BUFFER_MAX, ratio))
