"""Rows of a file: JSON lines, CSV or parquet, in verl's schema or a flat one."""

import codecs
import contextlib
import csv
import json
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TextIO

RESPONSE_KEYS = ("solution_str", "response", "output")
TRUTH_KEYS = ("ground_truth", "gts")
NO_TRUTH = f"no ground truth ({', '.join(TRUTH_KEYS)} or reward_model.ground_truth)"
DELIMITERS = ",;\t|"
BEGINNING = 1 << 16  # characters, of which the delimiter is known
BEGINNING_ROWS = 50
INFO_KEYS = ("db", "extra_dbs")  # of the row itself, that a reward reads from extra_info


class RowError(ValueError):
    """Something is wrong with one row; the message says what."""


def read_rows(path: Path) -> Iterator[tuple[int, dict | RowError]]:
    """(line number, row) for JSON lines and CSV, (row number from 0, row) for parquet.

    A line that is no JSON object, or has another number of cells than the header, comes as a RowError, so that the
    rest can go on. A byte order mark, as Windows writes it, says UTF-8 or UTF-16, and is no part of the text.
    """
    if path.suffix == ".parquet":
        import pyarrow.parquet

        numbers = iter(range(1 << 62))
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from zip(numbers, batch.to_pylist(), strict=False)
        return
    with open(path, "rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if wide else "utf-8-sig"
    with open(path, encoding=encoding, errors="replace", newline="") as lines:
        if path.suffix.lower() in (".csv", ".tsv"):
            yield from _cells(lines, path.suffix.lower() == ".tsv")
            return
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parse(line)


def place_of(path: Path, number: int) -> str:
    """What a message calls the row of this number of `read_rows`; editors jump to FILE:LINE."""
    return f"{path}, row {number} (from 0)" if path.suffix == ".parquet" else f"{path}:{number}"


def _cells(lines: TextIO, tabs: bool) -> Iterator[tuple[int, dict | RowError]]:
    """Rows by the names of the header."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    beginning = lines.read(BEGINNING)
    lines.seek(0)
    rows = csv.reader(lines, delimiter="\t" if tabs else delimiter_of(beginning))
    header = next(rows, [])
    try:
        for cells in rows:
            if len(cells) == len(header):
                yield rows.line_num, dict(zip(header, cells, strict=True))
            elif cells:
                wrong = f"{len(cells)} cells under a header of {len(header)}"
                yield rows.line_num, RowError(wrong)
    except csv.Error as error:
        yield rows.line_num, RowError(f"not CSV: {error}")


def delimiter_of(beginning: str) -> str:
    """What separates the cells of a CSV file: by it, most of the first rows have as many cells as the header.

    Excel writes semicolons in many languages. A comma, where no delimiter makes more than one column.
    """

    def fitting(delimiter: str) -> int:
        lines = csv.reader(beginning.splitlines(keepends=True), delimiter=delimiter, strict=True)
        found = []
        with contextlib.suppress(csv.Error):  # by another delimiter it may be CSV
            found += islice(lines, BEGINNING_ROWS)
        header = len(found[0]) if found else 0
        return sum(len(cells) == header for cells in found) if header > 1 else 0

    return max(DELIMITERS, key=fitting)


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
    raise RowError(NO_TRUTH)


def info_of(row: Mapping) -> dict:
    """`extra_info`, with what it lacks of the row itself: `db`, `extra_dbs`, and the prompt as `messages`.

    A prompt that is a text is the user's message; an `extra_info` that is one is JSON, as in a cell of a CSV file.
    """
    info = row.get("extra_info")
    if isinstance(info, str):
        info = _parse(info)
    info = dict(info) if isinstance(info, Mapping) else {}
    for key in INFO_KEYS:
        if row.get(key) is not None:
            info.setdefault(key, row[key])
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(prompt, list):
        info.setdefault("messages", prompt)  # as a run gives it
    return info


def response_of(row: Mapping) -> str:
    for key in RESPONSE_KEYS:
        if isinstance(row.get(key), str):
            return row[key]
    raise RowError(f"no response ({', '.join(RESPONSE_KEYS)})")
