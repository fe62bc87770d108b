"""The decision in an answer: the first {...}, read as JSON in linear time.

Stricter than Python's json: a name given twice, NaN and Infinity make it no JSON.
"""

import json

from rewards._references import after_thinking


def _once(pairs: list) -> dict:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError("a name is given twice")
    return named


def _refused(constant: str):
    raise ValueError(f"{constant} is no JSON")


# Integers as floats too: int() refuses thousands of digits, and takes quadratic time for them.
DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_int=float, parse_constant=_refused)


def decision_of(response: object, mode: str) -> tuple[str, float | None, float | None]:
    """(outcome, work, consumption); both None unless the outcome is "ok"."""
    text = after_thinking(response)
    start = text.find("{")
    try:
        # A failure is final. To try again at every later brace would be quadratic.
        found, end = DECODER.raw_decode(text, start) if start >= 0 else (None, 0)
    except (ValueError, RecursionError):
        found = None
    if found is None:
        return "no_json", None, None
    if mode == "strict" and (text[:start].strip() or text[end:].strip()):
        return "prose", None, None
    if "work" not in found or "consumption" not in found:
        return "missing", None, None
    work, consumption = found["work"], found["consumption"]
    if not (isinstance(work, float) and isinstance(consumption, float)):
        return "not_a_number", None, None
    if not (0 <= work <= 1 and 0 <= consumption <= 1):  # 1e999 is read as infinity
        return "out_of_range", None, None
    return "ok", work, consumption
