"""Successive halving: a job of a sweep ends early where it is not among the best at one of its rungs.

The rungs are a job's validations number m, m·eta, m·eta², ... (`lab.sweep.halving_min`, `lab.sweep.halving`; the one
at step 0 is not counted). A job that comes to a rung goes on if it is among the best 1/eta of the jobs of its sweep
that have come there; equal ones go on, too. Before eta jobs have come there, none is stopped: 1/eta of fewer is not
one whole job. Jobs are compared with those of the same seed, data and reward only: what a seed brings is no merit.

Source: ASHA, Li et al., arXiv:1810.05934, in the form that stops jobs, as Optuna's and Ray's have it: nothing waits for
others. Not covered: a setting that starts slowly and wins late is stopped; that is the price.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from launcher.best import is_loss
from launcher.judged import VALIDATED, Metrics, config_of, grader, seed_of
from launcher.metrics import read_metrics
from launcher.progress import named


def words(record: dict[str, Any]) -> str:
    """What `Halving.step` has said, for a person."""
    value = "no number" if record["value"] is None else f"{record['value']:.4g}"
    return (f"stopped early at step {record['step']}: {record['metric']} is {value} at validation"
            f" {record['validation']}, and the best 1/{record['eta']} of {record['jobs']} jobs with this seed have"
            f" {record['needed']:.4g} or better")  # fmt: skip


def is_rung(validation: int, first: int, eta: int) -> bool:
    """Whether the n-th validation (from 1) is one of first·eta^i."""
    while first < validation:
        first *= eta
    return first == validation


def needed(mine: float, others: list[float], eta: int) -> float | None:
    """What a value would have to be to stay, where it is too small for that; None: it stays. More is better."""
    everybody = sorted([*others, mine], reverse=True)
    if len(everybody) < eta:
        return None
    least = everybody[len(everybody) // eta - 1]
    return least if mine < least else None


class Halving:
    """Looks at the validations of a job as they come.

    Args:
        config: of the job, resolved.
        run_dir: of the job, which may have validations from earlier starts.
        sweep: the folder with all jobs.
    """

    def __init__(self, config: DictConfig, run_dir: Path, sweep: Path):
        from preflight.memory.forecast import total_steps  # --cfg job doesn't wait for it

        self.eta, self.first = config.lab.sweep.halving, config.lab.sweep.halving_min
        self.seed, self.total = str(config.lab.seed), total_steps(config)
        self.run_dir, self.sweep = run_dir, sweep
        self.metrics: Metrics = read_metrics(run_dir / "metrics.jsonl")

    def step(self, step: int, metrics: Mapping[str, Any]) -> dict[str, Any] | None:
        """Look at one line of metrics.jsonl; where the job is to end, why. Never at the last step: it saves nothing."""
        self.metrics = {at: values for at, values in self.metrics.items() if at < step}
        name = named(metrics, VALIDATED)
        if name is None or step < 1:
            return None
        self.metrics[step] = {name: metrics[name]}
        validation = len(validated(self.metrics, name))
        if step == self.total or not is_rung(validation, self.first, self.eta):
            return None
        sign = -1 if is_loss(name) else 1
        mine = merit(metrics[name], sign)
        others = [merit(value, sign) for value in self.of_others(name, validation)]
        least = needed(mine, others, self.eta)
        if least is None:
            return None
        return {"step": step, "validation": validation, "metric": name,
                "value": sign * mine if math.isfinite(mine) else None, "needed": sign * least,
                "jobs": len(others) + 1, "eta": self.eta}  # fmt: skip

    def of_others(self, name: str, validation: int) -> list[float]:
        """What the other jobs with this seed, data and reward had at a validation, of those that have come to it."""
        mine, found = grader(config_of(self.run_dir), name), []
        for file in self.sweep.glob("*/metrics.jsonl"):
            config = config_of(file.parent)
            if file.parent.samefile(self.run_dir) or seed_of(config) != self.seed:
                continue
            values = validated(read_metrics(file), name)
            if len(values) >= validation and grader(config, name) == mine:
                found.append(values[validation - 1])
        return found


def validated(metrics: Metrics, name: str) -> list[float]:
    """The values of a metric after step 0, in their order."""
    return [values[name] for step, values in sorted(metrics.items()) if step > 0 and name in values]


def merit(value: float | None, sign: int) -> float:
    """More is better; what is no number (verl writes null) is the worst."""
    return sign * value if value is not None and math.isfinite(value) else -math.inf
