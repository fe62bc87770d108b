"""Single values that verl refuses when it builds its dataclasses, or at the first use, after minutes."""

from omegaconf import DictConfig

from preflight import values
from preflight.mistakes import Mistake


def check_values(config: DictConfig) -> str | None:
    """Types, words out of a list, ranges, unknown keys. Raises Mistake, the last word: the others calculate."""
    if wrong := values.listed(values.faults(config)):
        raise Mistake(wrong)
    return None
