"""What a reward returns beside its score, as metrics of a training step."""

import logging
import math
from collections import defaultdict
from numbers import Real

import numpy as np

logger = logging.getLogger(__name__)
LONGEST = 40  # characters of a class's name
MOST = 30  # classes of a part, in all steps


def number(value) -> float:
    """As a float; infinite where it is beyond all of them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


class Parts:
    """The parts of a run's rewards: numbers, or a few classes with short names; anything else is no metric."""

    def __init__(self):
        self.classes: dict[str, set[str]] = defaultdict(set)
        self.refused: set[str] = set()

    def summarize(self, infos: list[dict]) -> dict[str, float]:
        """Average the parts of a batch's rewards.

        Args:
            infos: one dict a sample, as the reward function returned it. A part may be missing or None.

        Returns:
            `reward/PART` and `reward/PART/std`: mean and standard deviation (of the batch as it is, ddof 0)
            of a number over the samples that have it (NaN and infinity count as missing);
            `reward/PART/VALUE`: the share of a class among the samples that have the part. A text that is longer
            than LONGEST, or has had more than MOST values in this run, is free text: one line says so, and it
            stands in the dump of the answers alone.
        """
        numbers, texts = defaultdict(list), defaultdict(list)
        for info in infos:
            for part, value in info.items():
                if isinstance(value, str):
                    texts[part].append(value)
                elif isinstance(value, Real) and math.isfinite(as_float := number(value)):
                    numbers[part].append(as_float)
        metrics = {f"reward/{part}": float(np.mean(v)) for part, v in numbers.items()}
        metrics |= {f"reward/{part}/std": float(np.std(v)) for part, v in numbers.items()}
        for part, values in texts.items():
            if self.are_classes(part, set(values)):
                for value in sorted(set(values)):
                    metrics[f"reward/{part}/{value}"] = values.count(value) / len(values)
        return metrics

    def are_classes(self, part: str, values: set[str]) -> bool:
        """Whether a text part has a few short values, now and before."""
        if part in self.refused:
            return False
        self.classes[part] |= values
        if all(len(v) <= LONGEST for v in values) and len(self.classes[part]) <= MOST:
            return True
        self.refused.add(part)
        del self.classes[part]
        logger.error(
            f"the reward's part {part!r} is free text, and so no metric: it stands in rollouts/STEP.jsonl. A class has"
            f" at most {LONGEST} characters, and a part {MOST} of them."
        )
        return False
