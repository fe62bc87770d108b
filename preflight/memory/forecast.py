"""What is known of a run before it starts, for a person: the plan of its memory, a rough time, what was chosen."""

from dataclasses import dataclass, field

from omegaconf import DictConfig

from preflight.facts import is_driver, rows_read
from preflight.memory.plan import Plan, device_bytes, plan, table, trainer_bytes
from preflight.memory.sizes import Setup, setup_of
from preflight.memory.step_time import Estimate, estimate
from preflight.memory.training import GIB


@dataclass(frozen=True)
class Forecast:
    """What is known of a run before it starts.

    Args:
        setup: the sizes that the plan was made of; None if they are not known.
        plan: None with lab.plan=off as well.
        chosen: `key=value` → why, by lab.plan=auto.
        unknown: why there is no plan.
    """

    setup: Setup | None = None
    plan: Plan | None = None
    estimate: Estimate | None = None
    chosen: dict[str, str] = field(default_factory=dict)
    unknown: str = ""

    def text(self) -> str:
        """For a person, and for RUN/plan.txt: at most 80 characters a line, if no reason or figure is longer."""
        if self.plan is None:
            return f"no plan: {self.unknown}"
        parts = [table(self.plan)]
        if self.chosen:
            width = max(map(len, self.chosen))
            lines = [f"  {what:<{width}}  # {why}" for what, why in self.chosen.items()]
            parts.append("\n".join(["lab.plan=auto chose", *lines]))
        if self.estimate:
            parts.append(self.estimate.text())
        return "\n\n".join(parts)

    def figures(self) -> dict[str, float]:
        """To compare a run with: seconds of a step, GiB of the trainer's process or of the machine."""
        found = {}
        if self.estimate:
            found["step_s"] = round(self.estimate.step_s, 2)
        if self.plan:
            name = "allocated_gib" if self.plan.cuda else "machine_gib"
            found[name] = round(trainer_bytes(self.plan) / GIB, 2)
        return found


def forecast(config: DictConfig, chosen: dict[str, str] | None = None) -> Forecast:
    """Plan and estimate of a config whose values can be calculated with; with lab.plan=off its sizes alone.

    Args:
        config: stays as it is.
        chosen: what `fit.choose` has set in it.

    Raises UnknownModel.
    """
    setup = setup_of(config)
    if config.lab.plan == "off":
        return Forecast(setup, unknown="lab.plan=off")
    found = plan(setup, device_bytes(config))
    # A step of a driver is a round: how long its stages start and train depends on what they find.
    rough = None if is_driver(config) else estimate(setup, config, found.concurrent)
    return Forecast(setup, found, rough, chosen or {})


def total_steps(config: DictConfig) -> int | None:
    """Optimisation steps that the run will make; None if the config and the data don't say."""
    if config.trainer.total_training_steps:
        return config.trainer.total_training_steps
    have = rows_read(config, "train")
    return have and have // config.data.train_batch_size * config.trainer.total_epochs
