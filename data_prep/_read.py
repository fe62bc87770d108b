"""Reads rows from JSONL, JSON, CSV, TSV and parquet, one at a time.

The content says which format it is (parquet, a JSON array, else JSONL), and what separates the cells of a CSV
file; CSV and TSV are known by their ending. Text is UTF-8, UTF-16 with its byte order mark, or what the user says.
A row that can't be read comes as `Broken`, so that it is counted instead of ending the run. Bytes
that aren't of the encoding come as lone surrogates, which the schema check reports.
"""

import argparse
import codecs
import csv
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from preflight.mistakes import Mistake
from rewards._rows import BEGINNING, delimiter_of

PIECE = 1 << 20
GZIP = b"\x1f\x8b"
CUT = 16  # characters: more than a JSON word or escape that the end of a piece cuts off


@dataclass(frozen=True)
class Broken:
    """A row that can't be read: its text and why."""

    text: str
    why: str


class BadRow(ValueError):
    """A row that was read but can't be used; the text says which field and why."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a text file that a user brings."""
    parser.add_argument(
        "--encoding",
        type=encoding,
        help="of a text file that is not UTF-8: cp1252 (Windows, Western Europe), latin-1, big5, gb18030, ...",
    )
    parser.add_argument(
        "--delimiter",
        type=delimiter,
        metavar="CHARACTER",
        help="what separates the cells of a CSV file (default: found in the file)",
    )


def reader(args: argparse.Namespace, there: bool = True) -> Callable[[Path], Iterator]:
    """`read` with these options. Raises Mistake where they are given and no file is `there`."""
    for name in ("encoding", "delimiter"):
        if not there and getattr(args, name) is not None:
            raise Mistake(f"--{name} is for a FILE, and none is given")
    return partial(read, encoding=args.encoding, delimiter=args.delimiter)


def encoding(name: str) -> str:
    """An option's value that names an encoding of text."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise argparse.ArgumentTypeError(f"there is no encoding {name!r}") from None
    return name


def delimiter(text: str) -> str:
    r"""An option's value of one character; a tab may be written \t."""
    text = "\t" if text == "\\t" else text
    if len(text) != 1 or text in '\r\n"':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character that can separate cells")
    return text


def read(
    file: Path, encoding: str | None = None, delimiter: str | None = None
) -> Iterator[dict | Broken]:
    """The rows of `file`. Raises Mistake if it can't be read at all.

    encoding, delimiter: of a text file, and of a CSV file; None: found in the file.
    """
    with file.open("rb") as f:
        start = f.read(4)
    if start == b"PAR1":
        return _parquet(file)
    if start[:2] == GZIP:
        raise Mistake(f"{file} is gzip: unpack it first")
    wide = start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return _text(file, encoding or ("utf-16" if wide else "utf-8-sig"), delimiter)


def _text(file: Path, encoding: str, delimiter: str | None) -> Iterator[dict | Broken]:
    try:
        yield from _rows(file, encoding, delimiter)
    except UnicodeError as error:  # of encodings in which a lost byte moves all that follow
        raise Mistake(f"{file} is not {encoding}: {error}") from None


def _rows(file: Path, encoding: str, delimiter: str | None) -> Iterator[dict | Broken]:
    with file.open(encoding=encoding, errors="surrogateescape", newline="") as f:
        if file.suffix.lower() in (".csv", ".tsv"):
            yield from _csv(f, file, delimiter)
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


def _csv(f: IO[str], file: Path, delimiter: str | None) -> Iterator[dict | Broken]:
    """Rows by the header's names; a row of another length is broken."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    lines: list[str] = []  # of the present row

    def remembered() -> Iterator[str]:
        for line in f:
            lines.append(line)
            yield line

    if delimiter is None:
        delimiter = "\t" if file.suffix.lower() == ".tsv" else delimiter_of(f.read(BEGINNING))
        f.seek(0)
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
