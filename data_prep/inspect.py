"""Look into a parquet file: its rows, columns and lengths, what is wrong with rows, and the first ones."""

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from data_prep import _schema
from data_prep._lengths import Lengths, load_tokenizer
from data_prep._read import reading_parquet
from preflight.mistakes import Mistake

SHOWN = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the parquet file")
    parser.add_argument(
        "--head", type=int, default=1, metavar="N", help="number of rows to print (1)"
    )
    parser.add_argument("--tokenizer", help="model folder, for lengths in tokens")


def printable(value: object) -> str:
    """Text for a terminal: control characters but line ends are shown as escapes."""
    text = str(value)
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def show(value: dict | list, indent: str = "  ") -> None:
    """Print a value readably: mappings and lists as trees, texts with their line breaks."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        if isinstance(item, dict | list) and item:
            print(f"{indent}{name}:")
            show(item, indent + "  ")
        else:
            print(f"{indent}{name}: " + printable(item).replace("\n", f"\n{indent}  | "))


def run(args: argparse.Namespace) -> int:
    """Print the report; returns 1 if rows are bad, else 0."""
    if not args.file.is_file():
        raise Mistake(f"no file {args.file}")
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    problems, bad, number, head = [], 0, 0, []
    with reading_parquet(args.file):
        file = pq.ParquetFile(args.file)
        kind = _schema.kind_of(file.schema_arrow.names)
        lengths = Lengths(kind, tokenizer)
        for batch in file.iter_batches(batch_size=1024):
            rows, good = batch.to_pylist(), []
            head += rows[: max(0, args.head - len(head))]
            for row in rows:
                found = _schema.check(kind, row) if kind else []
                if found:
                    bad += 1
                    if len(problems) < SHOWN:
                        problems.append(f"  row {number}: {'; '.join(found)}")
                elif kind:
                    good.append(row)
                number += 1
            lengths.add(good)

    size = args.file.stat().st_size
    called = f"{kind} rows" if kind else "rows of no known kind"
    print(f"{args.file}: {number} {called}, {file.num_row_groups} row groups, {size:,} bytes")
    for column in file.schema_arrow:
        print(f"  {column.name}: {column.type}")
    if kind:
        summary = lengths.summary()
        for part in ("prompt", "answer"):
            figures = ", ".join(f"{name} {n}" for name, n in summary[part].items())
            print(f"{part} length in {summary['unit']}: {figures or 'no good rows'}")
        print(
            f"problems: {f'{bad} (row 0 is the first row)' if bad else 'none'}", *problems, sep="\n"
        )
    else:
        kinds = "; ".join(f"{name}: {', '.join(fields)}" for name, fields in _schema.KINDS.items())
        print(f"columns of the known kinds: {kinds}")
    for i, row in enumerate(head):
        print(f"row {i}")
        show(row)
    return 1 if bad else 0
