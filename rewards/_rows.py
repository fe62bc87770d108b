"""Rows of a file: JSON lines or parquet, in verl's schema or a flat one."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

RESPONSE_KEYS = ("solution_str", "response", "output")
TRUTH_KEYS = ("ground_truth", "gts")
INFO_KEYS = ("db", "extra_dbs")  # of the row itself, that a reward reads from extra_info


class RowError(ValueError):
    """Something is wrong with one row; the message says what."""


def read_rows(path: Path) -> Iterator[tuple[int, dict | RowError]]:
    """(line number, row) for JSON lines, (row number from 0, row) for parquet.

    A line that is no JSON object comes as a RowError, so that the rest can go on.
    """
    if path.suffix == ".parquet":
        import pyarrow.parquet

        numbers = iter(range(1 << 62))
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from zip(numbers, batch.to_pylist(), strict=False)
        return
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parse(line)


def _parse(line: str) -> dict | RowError:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return RowError(f"not JSON: {error}")
    return row if isinstance(row, dict) else RowError("not a JSON object")


def ground_truth_of(row: Mapping) -> object:
    """The ground truth: `ground_truth` or `gts`, else verl's `reward_model.ground_truth`."""
    for key in TRUTH_KEYS:
        if row.get(key) is not None:
            return row[key]
    nested = row.get("reward_model")
    if isinstance(nested, Mapping) and nested.get("ground_truth") is not None:
        return nested["ground_truth"]
    raise RowError(f"no ground truth ({', '.join(TRUTH_KEYS)} or reward_model.ground_truth)")


def info_of(row: Mapping) -> dict:
    """`extra_info`, with what it lacks of the row itself: `db`, `extra_dbs`, and the prompt as `messages`."""
    info = dict(row["extra_info"]) if isinstance(row.get("extra_info"), Mapping) else {}
    for key in INFO_KEYS:
        if row.get(key) is not None:
            info.setdefault(key, row[key])
    if isinstance(row.get("prompt"), list):
        info.setdefault("messages", row["prompt"])  # as a run gives it
    return info


def response_of(row: Mapping) -> str:
    for key in RESPONSE_KEYS:
        if isinstance(row.get(key), str):
            return row[key]
    raise RowError(f"no response ({', '.join(RESPONSE_KEYS)})")
