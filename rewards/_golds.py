"""The golds of a row as texts, faults among them, and what a response says after its thinking."""

import numbers
from collections.abc import Callable, Iterable, Mapping

from rewards._rows import RowError, gold_of


def after_thinking(response) -> str:
    """The text after the last `</think>`; all of it where there is none, nothing for no string."""
    return response.rpartition("</think>")[2] if isinstance(response, str) else ""


def golds(ground_truth) -> list[str]:
    """One gold or several (a list, a numpy array from parquet) as texts; numbers too, blanks left out."""
    if isinstance(ground_truth, str):
        return [ground_truth] if ground_truth.strip() else []
    if isinstance(ground_truth, numbers.Number) and not isinstance(ground_truth, bool):
        return [str(ground_truth)]
    if not isinstance(ground_truth, Iterable) or isinstance(ground_truth, bytes | Mapping):
        return []
    return [text for gold in ground_truth for text in golds(gold)]


def check_golds(rows, wrong_with: Callable[[str], str | None]) -> list[dict]:
    """Faults of golds: {"index", "outcome", "message"}. wrong_with says what is wrong with one, or None."""
    faults = []
    for index, row in enumerate(rows):
        try:
            found = golds(gold_of(row))
            messages = [wrong_with(gold) for gold in found] if found else ["no gold"]
        except RowError as error:
            messages = [str(error)]
        faults += [
            {"index": index, "outcome": "gold_error", "message": message}
            for message in messages
            if message
        ]
    return faults
