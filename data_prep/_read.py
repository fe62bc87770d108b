"""Reads rows from JSONL, JSON, CSV, TSV and parquet, one at a time.

The content says which format it is (parquet, a JSON array, else JSONL); CSV and TSV are known by their ending.
A row that can't be read comes as `Broken`, so that it is counted instead of ending the run. Bytes
that aren't UTF-8 come as lone surrogates, which the schema check reports.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from preflight.mistakes import Mistake

PIECE = 1 << 20
FOREIGN = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip"}
CUT = 16  # characters: more than a JSON word or escape that the end of a piece cuts off


@dataclass(frozen=True)
class Broken:
    """A row that can't be read: its text and why."""

    text: str
    why: str


class BadRow(ValueError):
    """A row that was read but can't be used; the text says which field and why."""


def read(file: Path) -> Iterator[dict | Broken]:
    """The rows of `file`. Raises Mistake if it can't be read at all."""
    with file.open("rb") as f:
        start = f.read(4)
    if start == b"PAR1":
        return _parquet(file)
    if start[:2] in FOREIGN:
        raise Mistake(f"{file} is {FOREIGN[start[:2]]}: make it UTF-8 text or parquet")
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


@contextmanager
def reading_parquet(file: Path) -> Iterator[None]:
    """Turns what pyarrow raises for a broken file into a Mistake."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{file} is not a readable parquet file: {error}") from None


def _parquet(file: Path) -> Iterator[dict]:
    with reading_parquet(file):
        parquet = pq.ParquetFile(file)
        _check_header(parquet.schema_arrow.names, file)
        for batch in parquet.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _check_header(names: list[str], file: Path) -> None:
    if not names or len(set(names)) < len(names):
        raise Mistake(f"the header of {file} is empty or names a column twice: {names}")


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
    decoder, space, mark = json.JSONDecoder(), re.compile(r"\s*"), re.compile(r"[,\]]?")
    text, number, after = f.read(PIECE), 0, ","
    at = space.match(text).end() + 1  # past the bracket
    while after != "]":
        at = space.match(text, at).end()
        if not number and text[at : at + 1] == "]":
            at += 1
            break
        try:
            value, end = decoder.raw_decode(text, at)
            wrong = space.match(text, end).end()
            after, why = mark.match(text, wrong)[0], "',' or ']' missing"
        except (ValueError, RecursionError) as error:
            after, why = "", getattr(error, "msg", str(error))
            wrong = len(text) if "Unterminated" in why else getattr(error, "pos", at)
        if after:
            yield _object(value, text[at:end])
            at, number = wrong + 1, number + 1
        else:  # cut off by the end of the piece, or broken; doubling keeps the work linear
            more = f.read(max(PIECE, len(text))) if len(text) - wrong < CUT else ""
            if not more:
                raise Mistake(f"{file} is a broken JSON array: element {number}: {why}")
            text, at = text[at:] + more, 0
    while not text[at:].strip():
        text, at = f.read(PIECE), 0
        if not text:
            return
    raise Mistake(f"{file} goes on after the end of its JSON array: {text[at:].strip()[:40]!r}")


def _csv(f: IO[str], file: Path) -> Iterator[dict | Broken]:
    """Rows by the header's names; a row of another length is broken."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    lines: list[str] = []  # of the present row

    def remembered() -> Iterator[str]:
        for line in f:
            lines.append(line)
            yield line

    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    heads = f.readline()
    f.seek(0)
    if delimiter == "," and heads.count(";") > heads.count(
        ","
    ):  # as Excel saves it in many languages
        delimiter = ";"
    rows, header = csv.reader(remembered(), delimiter=delimiter, strict=True), None
    while True:
        lines.clear()
        try:
            cells = next(rows, None)
        except csv.Error as error:
            if header is None:
                raise Mistake(f"the header of {file} is not CSV: {error}") from None
            yield Broken("".join(lines), f"not CSV: {error}")
            continue
        if header is None:
            header = cells or []
            _check_header(header, file)
        elif cells is None:
            return
        elif len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))
        elif cells:
            yield Broken("".join(lines), f"{len(cells)} cells under a header of {len(header)}")
