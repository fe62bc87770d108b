"""The metrics of a run, from its metrics.jsonl. A leaf: any room may import it."""

import json
from pathlib import Path


def parse(line: str) -> tuple[int, dict[str, float]] | None:
    """Step and metrics of one line; None for a line that a killed run left half-written."""
    try:
        record = json.loads(line)
        return int(record["step"]), record["data"]
    except (ValueError, KeyError, TypeError):
        return None


def read_metrics(file: Path) -> dict[int, dict[str, float]]:
    """All metrics of a run by step, each step once: a run that goes on makes some again, and the last time counts.

    A record of an earlier step than the last one is of a new start: what came after that step is no part of
    the run any more.
    """
    steps: dict[int, dict[str, float]] = {}
    if file.exists():
        last = -1
        with open(file, errors="replace") as lines:
            for line in lines:
                if not (record := parse(line)):
                    continue
                step, values = record
                if step < last:
                    steps = {s: v for s, v in steps.items() if s <= step}
                last = step
                steps.setdefault(step, {}).update(values)
    return steps
