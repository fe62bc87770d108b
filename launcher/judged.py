"""What a job of a sweep is judged by, and what that rests on: for the sweep's table, for a search, for halving."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from launcher.metrics import read_metrics
from launcher.progress import ACCURACY, named

# A loss last: with another algorithm, or another beta, it is another quantity.
VALIDATED = f"{ACCURACY}|val/accuracy|val/loss"
IN_TRAINING = "critic/score/mean|critic/rewards/mean|train/loss"  # of a run without a validation
CONFIG = "training_config.json"

Metrics = dict[int, dict[str, float]]  # by step


def metric_of(names: Iterable[str]) -> str | None:
    """The one that counts, of some names; None if they have none."""
    names = set(names)
    return named(names, VALIDATED) or named(names, IN_TRAINING)


def series(metrics: Metrics) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each metric that is a number, in their order."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, values in sorted(metrics.items()):
        for name, value in values.items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append((step, value))
    return found


def last(run_dir: Path, metric: str | None) -> tuple[str | None, float | None]:
    """The metric of a run (None: the one that counts), and its last value; no value of a run that diverged."""
    found = series(read_metrics(run_dir / "metrics.jsonl"))
    metric = metric or metric_of(found)
    value = found[metric][-1][1] if metric in found else math.nan
    return metric, value if math.isfinite(value) else None


def is_accuracy(metric: str | None) -> bool:
    """Whether a metric is a share of right answers."""
    return metric is not None and ("acc" in metric.split("/") or metric == "val/accuracy")


def config_of(run_dir: Path) -> dict:
    """The resolved config of a run; {} if there is none."""
    try:
        return json.loads((run_dir / CONFIG).read_text())
    except (OSError, ValueError):
        return {}


def seed_of(config: dict) -> str | None:
    """Of a run's resolved config."""
    seed = config.get("lab", {}).get("seed")
    return None if seed is None else str(seed)


def grader(config: dict, metric: str | None) -> str:
    """What the metric of a run rests on, as a text to compare: its data, its reward, and what else gives it a meaning.

    Right or wrong is that, whatever weights the options give the score, and whoever trains.
    """
    function = ((config.get("reward") or {}).get("custom_reward_function")) or {}
    parts = [config.get("data", {}).get("val_files"), function.get("path"), function.get("name")]
    if not is_accuracy(metric):
        parts += [
            function.get("reward_kwargs"),
            config.get("lab", {}).get("trainer", {}).get("entry"),
        ]
    return json.dumps(parts, sort_keys=True, default=str)
