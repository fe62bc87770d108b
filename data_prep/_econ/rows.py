"""One household in one year: reads and checks a row's columns, and writes them as a prompt.

`data_prep.econ` says what the columns mean.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from data_prep._read import BadRow

MONEY = ("wealth", "dpi", "income", "transfer", "tax")
MACRO = ("unemployment_rate", "gdp_growth", "wage_inflation", "price_inflation")
SHARES, CORRELATIONS = ("unemployment_rate", "u12", "work", "consumption"), ("r_okun", "r_phillips")
# what the reward reads
GRADED = ("employed", "wealth", "dpi", "buffer_ratio", *MACRO, *CORRELATIONS, "u12")
NUMBERS = (*dict.fromkeys((*MONEY, *GRADED[3:], "work", "consumption", "score")),)
COLUMNS = (*NUMBERS, "employed", "household")
TRUTH = {"true": True, "yes": True, "1": True, "1.0": True}
TRUTH |= {"false": False, "no": False, "0": False, "0.0": False}
TASK = (
    "work and consumption: shares from 0 to 1, of the year and of the disposable income. "
    'JSON only: {"work": ?, "consumption": ?}'
)


def number(name: str, value: Any) -> float | None:
    """A finite number, or None if it is absent."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise BadRow(f"{name}: {str(value)[:40]!r} is not a number") from None
    if math.isnan(found):
        return None
    low, high = (0, 1) if name in SHARES else (-1, 1) if name in CORRELATIONS else (None, math.inf)
    if math.isinf(found) or (low is not None and not low <= found <= high):
        wanted = "finite" if low is None else f"from {low} to {high}"
        raise BadRow(f"{name}: {str(value)[:40]} is not {wanted}")
    return found


def checked(row: Mapping) -> dict:
    """The columns that are there, as numbers, with employed and dpi. Raises BadRow."""
    found = {name: number(name, row.get(name)) for name in NUMBERS}
    state = {name: value for name, value in found.items() if value is not None}
    state["employed"] = TRUTH.get(str(row.get("employed")).strip().lower())
    if state["employed"] is None:
        raise BadRow(f"employed: {str(row.get('employed'))[:40]!r} is neither true nor false")
    if "dpi" not in state and "income" in state:
        state["dpi"] = state["income"] + state.get("transfer", 0) - state.get("tax", 0)
    for name in ("wealth", "dpi"):
        if name not in state:
            raise BadRow(f"{name}: missing" + (", and so is income" if name == "dpi" else ""))
    if ("work" in state) != ("consumption" in state):
        raise BadRow("work, consumption: a decision is both of them or neither")
    return state


def as_text(state: Mapping) -> str:
    """The state in one line, as the model reads it."""
    dpi, wealth = state["dpi"], state["wealth"]
    parts = ["Employed" if state["employed"] else "Unemployed"]
    parts += [f"{name} {state[name]:.0f}" for name in ("income", "tax") if name in state]
    years = f" ({wealth / dpi:.1f} years of it)" if dpi > 0 else ""
    parts += [f"disposable income {dpi:.0f}", f"savings {wealth:.0f}{years}"]
    if "unemployment_rate" in state:
        parts.append(f"unemployment {state['unemployment_rate']:.1%}")
    for name, short in zip(MACRO[1:], ("GDP", "wages", "prices"), strict=True):
        if name in state:
            parts.append(f"{short} {state[name]:+.1f}%")
    return ", ".join(parts) + "."


def decision(state: Mapping) -> str:
    """The decision as the answer; empty if there is none."""
    if "work" not in state:
        return ""
    return json.dumps({name: state[name] for name in ("work", "consumption")})


def prompt(state: Mapping, examples: list[tuple[str, str]]) -> list[dict[str, str]]:
    """The messages; examples: (state, decision) as texts."""
    shown = ["Examples:", *(line for example in examples for line in example), ""]
    lines = [*(shown if examples else []), as_text(state), TASK]
    return [{"role": "user", "content": "\n".join(lines)}]


def ground_truth(state: Mapping) -> str:
    """What the reward needs to know, as JSON."""
    return json.dumps({name: state[name] for name in GRADED if name in state})
