"""The reference answers of a row as texts, faults among them, and what a response says after its thinking."""

import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping

from rewards._rows import RowError, ground_truth_of

THINKING = re.compile(r"<think(?:ing)?>", re.I)
THOUGHT = re.compile(r"</think(?:ing)?>", re.I)
EXACT = 2**53  # beyond, not every whole number is a float


def after_thinking(response) -> str:
    """What a response says when it has thought; nothing for no string.

    That is the text after the last `</think>`, up to a `<think>` that never closes: an answer that was cut off
    while thinking has said nothing. Of a text without either, all.
    """
    if not isinstance(response, str):
        return ""
    start = 0
    for closed in THOUGHT.finditer(response):
        start = closed.end()
    opened = THINKING.search(response, start)
    return response[start : opened.start() if opened else None]


def references(ground_truth) -> list[str]:
    """One reference answer or several (a list, an array from parquet) as texts; blanks and what is missing left out.

    A float that is a whole number is written as one: pandas makes floats of integers where one is missing.
    Truth values and mappings are none.
    """
    if isinstance(ground_truth, str):
        return [ground_truth] if ground_truth.strip() else []
    if isinstance(ground_truth, numbers.Number):
        text = _number(ground_truth)
        return [text] if text else []
    if getattr(ground_truth, "shape", None) == ():  # one value in an array, which can't be iterated
        return references(ground_truth.item())
    if not isinstance(ground_truth, Iterable) or isinstance(ground_truth, bytes | Mapping):
        return []
    return [text for reference in ground_truth for text in references(reference)]


def _number(number) -> str:
    """As text; empty for NaN and a truth value."""
    if isinstance(number, bool) or number != number:
        return ""
    if isinstance(number, numbers.Real) and not isinstance(number, numbers.Rational):
        whole = float(number)
        if math.isfinite(whole) and whole == int(whole) and abs(whole) <= EXACT:
            return str(int(whole))
    return str(number)


def reference_faults(rows, wrong_with: Callable[[str], str | None]) -> list[dict]:
    """Faults of reference answers: {"index", "outcome", "message"}. wrong_with says what is wrong with one, or None."""
    faults = []
    for index, row in enumerate(rows):
        try:
            found = references(ground_truth_of(row))
            messages = [wrong_with(reference) for reference in found] if found else ["no reference"]
        except RowError as error:
            messages = [str(error)]
        faults += [
            {"index": index, "outcome": "gold_error", "message": message}
            for message in messages
            if message
        ]
    return faults
