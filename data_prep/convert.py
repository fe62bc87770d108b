"""JSON, JSONL, CSV or TSV to parquet, with the same columns and values: no field map.

  python -m data_prep convert answers.jsonl            (writes answers.parquet beside it)
The file is read twice, for the types and for the rows, so that memory does not grow with it.
A column has one type: whole numbers and fractions together become fractions, a missing value or field
becomes null, and objects with different fields become objects with all of them. Values of a CSV stay
text, because 007 is not 7. A row is bad if a value has another type than in the rows before it (a text
among numbers), or if parquet cannot hold it (a whole number above 64 bits, broken UTF-8).
--on-bad skip writes bad rows with their reason to FILE.rejected.jsonl beside the parquet file.
"""

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_prep import _dataset, _read
from data_prep._read import Broken
from preflight.mistakes import Mistake

BATCH = 1000  # rows
UNFIT = (
    pa.ArrowException,
    TypeError,
    ValueError,
    OverflowError,
)  # what pyarrow makes of bad values


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("source", type=Path, metavar="FILE", help="the file to read")
    _read.add_options(parser)
    parser.add_argument(
        "--out", type=Path, help="the parquet file (default: FILE with the ending .parquet)"
    )
    parser.add_argument("--force", action="store_true", help="replace --out")
    parser.add_argument(
        "--on-bad",
        choices=("fail", "skip"),
        default="fail",
        help="bad rows: end with an error that shows the first ten, or write them to another file (%(default)s)",
    )


def type_of(rows: list[dict], so_far: pa.DataType | None) -> pa.DataType:
    """The type of these rows and of those `so_far`, as a struct. Raises one of UNFIT."""
    found = pa.array(rows).type
    if so_far is None:
        return found
    both = [pa.schema(list(so_far)), pa.schema(list(found))]
    return pa.struct(list(pa.unify_schemas(both, promote_options="permissive")))


def batches(source: Iterator) -> Iterator[list]:
    """The rows of `source` in batches."""
    while batch := list(islice(source, BATCH)):
        yield batch


def types(source: Iterator, name: str) -> pa.DataType | None:
    """The type of all rows that have one; None if none has."""
    found = None
    rows = tqdm(source, f"{name}: types", unit=" rows", disable=None)
    for batch in batches(row for row in rows if not isinstance(row, Broken)):
        try:
            found = type_of(batch, found)
        except UNFIT:  # some row is bad; it is rejected when the rows are written
            for row in batch:
                try:
                    found = type_of([row], found)
                except UNFIT:
                    continue
    return found


def fitting(batch: list, kind: pa.DataType) -> pa.Array:
    """The rows as an array of `kind`. Raises one of UNFIT.

    pyarrow would drop a field that `kind` doesn't have, and take a text for a list of letters.
    """
    if type_of(batch, kind) != kind:
        raise ValueError("fields that the rows before it don't have in this way")
    return pa.array(batch, kind)


def write(
    source: Iterator, rows: _dataset.Rows, kind: pa.DataType, writer: pq.ParquetWriter
) -> int:
    """Write the rows that fit, reject the others; returns how many were written."""
    written = 0
    for batch in batches(source):
        good = [(number, row) for number, row in batch if not isinstance(row, Broken)]
        for number, row in batch:
            if isinstance(row, Broken):
                rows.reject(number, row.text, row.why)
        try:
            arrays = [fitting([row for _, row in good], kind)] if good else []
        except UNFIT:
            arrays = []
            for number, row in good:
                try:
                    arrays.append(fitting([row], kind))
                except UNFIT as error:
                    rows.reject(number, row, " ".join(str(error).split()))
        if arrays:
            whole = pa.RecordBatch.from_struct_array(pa.concat_arrays(arrays))
            writer.write_batch(whole)
            written += len(whole)
    return written


def run(args: argparse.Namespace) -> None:
    """Write the parquet file."""
    out = args.out or args.source.with_suffix(".parquet")
    if not args.source.is_file():
        raise Mistake(f"no file {args.source}")
    with args.source.open("rb") as file:
        if file.read(4) == b"PAR1":
            raise Mistake(f"{args.source} is parquet already")
    rejected = out.with_suffix(".rejected.jsonl")
    for file in (out, rejected):
        if file.exists() and not args.force:
            raise Mistake(f"{file} is there; --force replaces it")
    read, name = partial(_read.reader(args), args.source), args.source.name
    kind = types(read(), name) or pa.struct([])
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside the file: renaming works in one file system only
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        rows, made = _dataset.Rows(Path(folder), {}, args.on_bad, None), Path(folder) / out.name
        try:
            with pq.ParquetWriter(made, pa.schema(list(kind))) as writer:
                written = write(rows.reading(read(), name), rows, kind, writer)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            raise Mistake(f"parquet can't hold {args.source}: {error}") from None
        counts = rows.settle()
        if not written or not len(kind):
            what = "no row has a column" if written else f"all {counts['read']} rows are bad"
            raise Mistake(f"nothing to write: {what} in {args.source}")
        rejected.unlink(missing_ok=True)
        made.replace(out)
        if counts["rejected"]:
            (Path(folder) / "rejected.jsonl").replace(rejected)
    lost = f"; {counts['rejected']} rejected, see {rejected}" if counts["rejected"] else ""
    print(f"{out}: {written} rows, columns {', '.join(f.name for f in kind)}{lost}")
