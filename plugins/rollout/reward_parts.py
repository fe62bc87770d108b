"""What a reward returns beside its score, as metrics of a training step."""

from collections import defaultdict
from numbers import Real

import numpy as np


def summarize(infos: list[dict]) -> dict[str, float]:
    """Average the parts of a batch's rewards.

    Args:
        infos: one dict a sample, as the reward function returned it. A part may be missing or None.

    Returns:
        `reward/PART` and `reward/PART/std`: mean and standard deviation (of the batch as it is, ddof 0)
        of a number over the samples that have it (NaN counts as missing);
        `reward/PART/VALUE`: the share of a text value among the samples that have the part.
    """
    numbers, texts = defaultdict(list), defaultdict(list)
    for info in infos:
        for part, value in info.items():
            if isinstance(value, str):
                texts[part].append(value)
            elif isinstance(value, Real) and value == value:
                numbers[part].append(float(value))
    metrics = {f"reward/{part}": float(np.mean(v)) for part, v in numbers.items()}
    metrics |= {f"reward/{part}/std": float(np.std(v)) for part, v in numbers.items()}
    for part, values in texts.items():
        for value in sorted(set(values)):
            metrics[f"reward/{part}/{value}"] = values.count(value) / len(values)
    return metrics
