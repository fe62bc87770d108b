"""Any dataset of the Hugging Face hub, or a local folder of JSON, CSV or parquet, with a field map.

Options marked (text) take a field's name, or a text with {{field}} in it for the field's value:
  openai/gsm8k --config main --prompt question --answer answer --split-val test
A prompt field may hold messages ({role, content}). Rows are streamed: nothing is downloaded first.
Without --split-val, a share of the training split is for validation. Writes RL rows, and SFT rows
where there is an answer. The command ends at a file that `datasets` cannot read; for files with broken
lines use `jsonl`. Gated datasets need `hf auth login`.
"""

import argparse
from pathlib import Path

from data_prep import _dataset, _fields, _hub
from preflight.mistakes import Mistake


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument("source", metavar="NAME", help="a dataset's name, or a folder")
    parser.add_argument("--config", help="name of a configuration, if the dataset has several")
    parser.add_argument(
        "--split-train",
        default="train",
        metavar="SPLIT",
        help="split of training rows (%(default)s)",
    )
    parser.add_argument("--split-val", metavar="SPLIT", help="split of validation rows")
    _fields.add_options(parser, "dataset")
    parser.add_argument(
        "--val-share",
        type=_dataset.val_share,
        default=0.05,
        help="share for validation, without --split-val (%(default)s)",
    )
    _dataset.add_options(parser, "hf")


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    place = Path(args.source)
    local = place.is_dir()
    if place.is_file():
        raise Mistake(f"{place} is a file: `python -m data_prep jsonl {place}` reads it")
    name = place.resolve().name if local else args.source
    mapper = _fields.Mapper(args, name, place if local else Path(), args.val_share)
    splits = [("val", args.split_val), ("train", args.split_train)]
    if not args.split_val:
        splits = [("", args.split_train)]

    def fill(rows: _dataset.Rows) -> None:
        for given, split in splits:
            rows_of_split = _hub.stream(args.source, args.config, split)
            mapper.add_all(rows, rows_of_split, f"{name} {split}", given)

    files = [file for file in place.rglob("*") if file.is_file()] if local else []
    _dataset.make("hf", args, fill, mapper.extra, files)
