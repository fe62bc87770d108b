"""Single values that verl refuses when it builds its dataclasses, or at the first use, after minutes."""

from omegaconf import DictConfig

from preflight import values
from preflight.mistakes import Mistake


def check_counts(config: DictConfig) -> str | None:
    """Whole numbers. Raises Mistake, which ends the checks: the others calculate with them."""
    if wrong := values.bad_count(config):
        raise Mistake(wrong)
    return None


def check_choices(config: DictConfig) -> str | None:
    """Words out of a list of verl's."""
    return values.bad_choice(config)


def check_ranges(config: DictConfig) -> str | None:
    """Numbers outside of what they can mean."""
    return values.out_of_range(config)
