"""The reference answers of a row as texts, faults among them, and what a response says after its thinking."""

import numbers
from collections.abc import Callable, Iterable, Mapping

from rewards._rows import RowError, ground_truth_of


def after_thinking(response) -> str:
    """The text after the last `</think>`; all of it where there is none, nothing for no string."""
    return response.rpartition("</think>")[2] if isinstance(response, str) else ""


def references(ground_truth) -> list[str]:
    """One reference answer or several (a list, a numpy array from parquet) as texts; numbers too, blanks left out."""
    if isinstance(ground_truth, str):
        return [ground_truth] if ground_truth.strip() else []
    if isinstance(ground_truth, numbers.Number) and not isinstance(ground_truth, bool):
        return [str(ground_truth)]
    if not isinstance(ground_truth, Iterable) or isinstance(ground_truth, bytes | Mapping):
        return []
    return [text for reference in ground_truth for text in references(reference)]


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
