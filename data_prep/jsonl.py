"""Your own data: JSONL, JSON, CSV, TSV or parquet, with a map of its fields.

Options marked (text) take a field's name, or a text with {{field}} in it for the field's value:
  --prompt question            --prompt $'Schema: {{schema}}\\nQuestion: {{question}}'
($'...' is how bash writes a line break in an argument.) Single braces stay as they are. The field of the
prompt may also hold messages ({role, content}, or ShareGPT's {from, value}); a.b is field b of a mapping a.
Writes RL rows, and SFT rows where there is an answer. Rows with the same prompt are on the same side of the split.
"""

import argparse
from pathlib import Path

from data_prep import _dataset, _fields, _read
from preflight.mistakes import Mistake


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument("source", type=Path, metavar="FILE", help="the file to read")
    _read.add_options(parser)
    _fields.add_options(parser, "file")
    parser.add_argument("--val", type=Path, help="file of validation rows")
    parser.add_argument(
        "--val-share",
        type=_dataset.val_share,
        default=0.05,
        help="share for validation, without --val (%(default)s)",
    )
    _dataset.add_options(parser, "jsonl")


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    sources = [("val", args.val), ("train", args.source)] if args.val else [("", args.source)]
    for _, file in sources:
        if not file.is_file():
            raise Mistake(f"no file {file}")
    mapper = _fields.Mapper(args, args.source.stem, args.source.parent, args.val_share)

    def fill(rows: _dataset.Rows) -> None:
        for given, file in sources:
            mapper.add_all(rows, _read.reader(args)(file), file.name, given)

    _dataset.make("jsonl", args, fill, mapper.extra, [file for _, file in sources])
