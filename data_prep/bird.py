"""BIRD: a local folder with train.json, train_databases/, dev.json and dev_databases/.

The files may lie in sub-folders, as the two official archives unpack them. If only one of the two
splits is there, its questions are split by database. The evidence is part of the prompt. Every
reference answer is executed once: a row whose reference answer fails, or whose database is missing, is
bad. Writes RL and SFT rows.
"""

import argparse
from collections.abc import Mapping

from data_prep import _text2sql
from preflight.mistakes import Mistake

FILES = {"train.json": ("train", "train_databases"), "dev.json": ("val", "dev_databases")}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    _text2sql.add_options(parser, "bird")


def ask(row: Mapping) -> _text2sql.Asked:
    """The fields of a BIRD row."""
    return _text2sql.Asked(
        row.get("db_id"),
        row.get("question"),
        row.get("SQL"),
        row.get("evidence"),
        row.get("difficulty"),
    )


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    found = {name: _text2sql.find(args.source, name) for name in FILES}
    parts = [
        _text2sql.Part(FILES[name][0], file, file.parent / FILES[name][1])
        for name, file in found.items()
        if file
    ]
    if not parts:
        raise Mistake(f"none of {', '.join(FILES)} in {args.source}")
    _text2sql.run("bird", args, parts, ask)
