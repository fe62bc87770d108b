"""Which answers to a prompt become a preference pair.

The best is paired with the worst, the second best with the second worst, and so on (Yuan et al.,
arXiv:2401.10020, take the one pair of highest and lowest score of a prompt, and leave it out if
these are equal). An answer is one text: the same text twice counts once, with the mean of its scores.
Answers that are empty or could not be graded are left out.
"""

import itertools
import math
from collections import defaultdict


def best_with_worst(
    answers: list[tuple[str, float]], most: int, margin: float
) -> tuple[list[tuple[str, str]], int]:
    """Pairs (better, worse) of the answers to one prompt, and how many different texts there are.

    Args:
        answers: text and score of each; NaN: could not be graded. Equal scores keep this order, so
            that the same answers give the same pairs.
        most: at most so many pairs; no answer stands in two.
        margin: the scores of a pair differ by more than this (0 or more).
    """
    scores = defaultdict(list)
    for text, score in answers:
        if text.strip() and not math.isnan(score):
            scores[text].append(score)
    mean = {text: sum(values) / len(values) for text, values in scores.items()}
    ranked = sorted(mean, key=mean.get, reverse=True)
    pairs = zip(ranked[: len(ranked) // 2], reversed(ranked), strict=False)
    best = itertools.islice(pairs, most)
    return [(better, worse) for better, worse in best if mean[better] - mean[worse] > margin], len(
        mean
    )
