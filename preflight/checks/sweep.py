"""`lab.sweep.*`: budgets, successive halving, a search."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from preflight.checks import applies_to
from preflight.facts import given, is_of_a_sweep
from preflight.memory.forecast import total_steps
from preflight.resolvers import SEARCH

FEWEST = 2  # validations: the first one tells of the begin, and a halving on it would be a guess
S = "lab.sweep"


def whole(value) -> bool:
    """Whether a value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_sweep(config: DictConfig) -> str | None:
    """Single values."""
    sweep = config.lab.sweep
    if not isinstance(sweep, DictConfig):
        return f"{S} is a group of settings; set one of them, as {S}.NAME=VALUE."
    for key in ("budget_steps", "budget_hours"):
        value = sweep[key]
        if (value is not None and not (whole(value) or isinstance(value, float))) or (
            value or 0
        ) < 0:
            return f"{S}.{key}={value} must be a number, 0 or more, or null (no limit)."
    if sweep.halving is not None and not (whole(sweep.halving) and sweep.halving >= 2):
        return f"{S}.halving={sweep.halving} must be 2 or more (3 keeps the best third), or null (off)."
    if not (whole(sweep.halving_min) and sweep.halving_min >= FEWEST):
        return (f"{S}.halving_min={sweep.halving_min} must be {FEWEST} or more: fewer validations say too little to"
                " stop a job.")  # fmt: skip
    if not (whole(sweep.trials) and sweep.trials >= 1):
        return f"{S}.trials={sweep.trials} must be a whole number, 1 or more."
    seeds = sweep.seeds
    if seeds is not None and not (isinstance(seeds, ListConfig) and seeds and all(map(whole, seeds))
                                  and len(set(seeds)) == len(seeds) and min(seeds) >= 0):  # fmt: skip
        return f"{S}.seeds={seeds} must be a list of different whole numbers: [0,1], or null (lab.seed alone)."
    return None


def check_search(config: DictConfig) -> str | None:
    """What only a search uses, asked of another sweep; a single run may be a job of a search that goes on."""
    if not is_of_a_sweep() or HydraConfig.get().sweeper._target_ == SEARCH:
        return None
    for key in ("trials", "seeds"):
        if given(f"{S}.{key}"):
            return (f"{S}.{key} is of a search: choose one (sweep=search, or hydra/sweeper=search with a space of your"
                    " own), or leave it out. Seeds of another sweep: lab.seed=0,1,2")  # fmt: skip
    return None


@applies_to(lambda config: check_sweep(config) is None and config.lab.sweep.halving is not None)
def check_halving(config: DictConfig) -> str | None:
    """A halving that never stops a job."""
    every, steps = config.trainer.test_freq, total_steps(config)
    if not every or (whole(every) and every < 1):
        return f"{S}.halving stops jobs at their validations, and this run makes none: set trainer.test_freq=N."
    if whole(every) and steps and steps // every <= config.lab.sweep.halving_min:
        return (f"{S}.halving would never stop a job: with trainer.test_freq={every} a run of {steps} steps validates"
                f" {steps // every} times, and {S}.halving_min={config.lab.sweep.halving_min} is the first that counts"
                " before the end. Validate more often.")  # fmt: skip
    return None
