"""What is known of a run before it starts, for a person: the plan of its memory, a rough time, what was chosen."""

from dataclasses import dataclass

from omegaconf import DictConfig

from preflight.checks.values import unusable
from preflight.memory.fit import choose
from preflight.memory.plan import Plan, device_bytes, plan, table, trainer_bytes
from preflight.memory.sizes import setup_of
from preflight.memory.step_time import Estimate, estimate
from preflight.memory.training import GIB
from preflight.models import UnknownModel


@dataclass(frozen=True)
class Forecast:
    """What is known of a run before it starts. chosen: `key=value` → why, by lab.plan=auto."""

    plan: Plan | None
    estimate: Estimate | None
    chosen: dict[str, str]
    unknown: str = ""

    def text(self) -> str:
        """For a person, and for RUN/plan.txt."""
        if self.plan is None:
            return f"no plan: {self.unknown}"
        parts = [table(self.plan)]
        if self.chosen:
            width = max(map(len, self.chosen))
            lines = [f"  {what:<{width}}  # {why}" for what, why in self.chosen.items()]
            parts.append("\n".join(["lab.plan=auto chose", *lines]))
        if self.estimate:
            phases = ", ".join(f"{name} {round_s(s)}" for name, s in self.estimate.phases.items())
            parts.append(
                f"a step: about {round_s(self.estimate.step_s)} ({phases})\n  assumed: {self.estimate.assumed}"
            )
        return "\n\n".join(parts)

    def figures(self) -> dict[str, float]:
        """To compare a run with: seconds of a step, GiB of the trainer's process or of the machine."""
        found = {}
        if self.estimate:
            found["step_s"] = round(self.estimate.step_s, 2)
        if self.plan:
            found["allocated_gib" if self.plan.cuda else "machine_gib"] = round(
                trainer_bytes(self.plan) / GIB, 2
            )
        return found


def round_s(seconds: float) -> str:
    """Two figures: more are not known."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def forecast(config: DictConfig) -> Forecast:
    """Plan and estimate; with lab.plan=auto `config` is changed first. lab.plan=off: neither."""
    if none := "lab.plan=off" if config.lab.plan == "off" else unusable(config):
        return Forecast(None, None, {}, none)
    try:
        chosen = choose(config) if config.lab.plan == "auto" else {}
        setup = setup_of(config)
    except UnknownModel as error:
        return Forecast(None, None, {}, str(error))
    found = plan(setup, device_bytes(config))
    return Forecast(found, estimate(setup, config, found.concurrent), chosen)
