"""Several runs side by side: where their configs differ, and their figures."""

from launcher.best import is_loss
from launcher.progress import VALIDATION, named
from tools._monitor.runs import TILES, Run, finite

# where a run lies and when it began differs always
PLACES = ("lab.run_dir", "lab.env", "trainer.default_local_dir", "trainer.rollout_data_dir",
          "trainer.validation_data_dir", "trainer.experiment_name", "hydra")  # fmt: skip


def flat(config: object, prefix: str = "") -> dict[str, object]:
    """A config by dotted names; a list is one value."""
    if not isinstance(config, dict) or not config:
        return {prefix: config} if prefix else {}
    found: dict[str, object] = {}
    for key, value in config.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def differences(configs: list[dict]) -> list[dict]:
    """The keys whose values are not the same in all configs; None where a config has no such key.

    Those that all configs have come first.
    """
    flats = [flat(config) for config in configs]
    rows = []
    for key in sorted({key for config in flats for key in config}):
        if any(key == place or key.startswith(f"{place}.") for place in PLACES):
            continue
        values = [config.get(key) for config in flats]
        if any(value != values[0] for value in values):
            rows.append({"key": key, "values": [None if v is None else str(v) for v in values]})
    return sorted(rows, key=lambda row: None in row["values"])


def figures(run: Run) -> dict:
    """Of one run: the last values, and its best validation."""
    metrics = run.metrics
    names = list(metrics.columns)
    row = {name: finite(metrics.last(named(names, pattern))) for name, pattern in TILES.items()}
    judged = named(names, VALIDATION)
    series = metrics.series(judged) if judged else []
    if series:
        sign = -1 if is_loss(judged) else 1
        step, value = max(series, key=lambda at: sign * at[1])
        row |= {
            "first validation": finite(series[0][1]), "best validation": finite(value), "at step": step,
        }  # fmt: skip
    return {"steps": metrics.last_step, **row}


def overrides(run: Run) -> list[str]:
    """What its command line said."""
    said = run.attempt.get("command")
    return [str(word) for word in said[1:]] if isinstance(said, list) else []


def side_by_side(runs: list[Run]) -> dict:
    """What the page shows of several runs."""
    tables = [figures(run) for run in runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    return {
        "runs": [run.name for run in runs],
        "commands": [overrides(run) for run in runs],
        "differences": differences([run.config for run in runs]),
        "figures": [
            {"name": name, "values": [table.get(name) for table in tables]}
            for name in names
            if any(table.get(name) is not None for table in tables)
        ],
    }
