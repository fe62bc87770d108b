"""Reads rows from JSONL, JSON, CSV, TSV and parquet, one at a time.

The format is told by the content (parquet, a JSON array, else JSONL), CSV and TSV by their ending.
A row that can't be read comes as `Broken`, so that it is counted instead of ending the run. Bytes
that aren't UTF-8 come as lone surrogates, which the schema check reports.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep import UserError

PIECE = 1 << 20


@dataclass(frozen=True)
class Broken:
    """A row that can't be read: its text and why."""

    text: str
    why: str


def read(file: Path) -> Iterator[dict | Broken]:
    """The rows of `file`. Raises UserError if it can't be read at all."""
    with file.open("rb") as f:
        start = f.read(4)
    if start == b"PAR1":
        return _parquet(file)
    return _text(file)


def _text(file: Path) -> Iterator[dict | Broken]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as f:
        if file.suffix.lower() in (".csv", ".tsv"):
            yield from _csv(f, file)
            return
        first = " "
        while first.isspace():
            first = f.read(1)
        f.seek(0)
        yield from _array(f, file) if first == "[" else _jsonl(f)


def _parquet(file: Path) -> Iterator[dict]:
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise UserError(f"{file} is not a readable parquet file: {error}") from None


def _object(value: object, text: str) -> dict | Broken:
    return value if isinstance(value, dict) else Broken(text, "not a JSON object")


def _jsonl(f: IO[str]) -> Iterator[dict | Broken]:
    for line in f:
        if line.strip():
            try:
                yield _object(json.loads(line), line)
            except (ValueError, RecursionError) as error:
                yield Broken(line, f"not JSON: {error}")


def _array(f: IO[str], file: Path) -> Iterator[dict | Broken]:
    """The elements of one JSON array, read in pieces so that memory does not grow with it."""
    decoder, space, mark = json.JSONDecoder(), re.compile(r"\s*"), re.compile(r"\s*([,\]])")
    text, at = f.read(PIECE), 0
    at = space.match(text, at).end() + 1  # past the bracket
    first = True
    while True:
        at = space.match(text, at).end()
        if first and text[at : at + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
            after = mark.match(text, end)
            why = f"',' or ']' missing after {text[at:end][-40:]!r}"
        except (ValueError, RecursionError) as error:
            after, why = None, str(error)
        if after:
            yield _object(value, text[at:end])
            if after[1] == "]":
                return
            at, first = after.end(), False
        else:  # cut off by the end of the piece, or broken; doubling keeps the work linear
            more = f.read(max(PIECE, len(text)))
            if not more:
                raise UserError(f"{file} is a broken JSON array: {why}")
            text, at = text[at:] + more, 0


def _csv(f: IO[str], file: Path) -> Iterator[dict | Broken]:
    """Rows by the header's names; a row of another length is broken."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    rows = csv.reader(f, delimiter="\t" if file.suffix.lower() == ".tsv" else ",", strict=True)
    header = next(rows, [])
    if not header or len(set(header)) < len(header):
        raise UserError(f"the header of {file} is empty or names a column twice: {header}")
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Broken("", f"not CSV: {error}")
            continue
        if len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        elif cells:
            yield Broken(str(cells), f"{len(cells)} cells under a header of {len(header)}")
