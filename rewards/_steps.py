"""The steps of an answer, which stand between blank lines: for data, trainer and reward of a process reward model."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

BLANK_LINE = re.compile(r"\n\s*\n")


def split_steps(text: str) -> list[tuple[int, int]]:
    """(start, end) of each step in `text`, without the white space around it; none is empty."""
    edges = [0, *chain.from_iterable(m.span() for m in BLANK_LINE.finditer(text)), len(text)]
    found = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        piece = text[start:end]
        start, end = end - len(piece.lstrip()), start + len(piece.rstrip())
        if start < end:
            found.append((start, end))
    return found


def join_steps(steps: Iterable[str]) -> tuple[str, list[int]]:
    """The steps, stripped, with one blank line between them, and where each ends in that text (exclusive)."""
    steps = [step.strip() for step in steps]
    return "\n\n".join(steps), [end - 2 for end in accumulate(len(step) + 2 for step in steps)]


def tokens_at(starts: Sequence[int], ends: Iterable[int]) -> list[int]:
    """Where each step is complete: the last token that begins before the step's end.

    That is the token with the step's last character, also where it goes on into the blank line
    between two steps: ")\\n\\n" is one token of many vocabularies.

    Args:
        starts: where each token begins, in characters, ascending.
        ends: where each step ends, in characters (exclusive).

    Returns:
        positions of tokens, from 0, one a step.
    """
    return [bisect_left(starts, end) - 1 for end in ends]
