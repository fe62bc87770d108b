"""Spider: a local folder with train_spider.json, train_others.json, dev.json and database/.

If only one of the two splits is there, its questions are split by database. Every reference answer is
executed once: a row whose reference answer fails, or whose database is missing, is bad. Writes RL and
SFT rows.
"""

import argparse
from collections.abc import Mapping

from data_prep import _text2sql
from preflight.mistakes import Mistake

FILES = {"train_spider.json": "train", "train_others.json": "train", "dev.json": "val"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    _text2sql.add_options(parser, "spider")


def ask(row: Mapping) -> _text2sql.Asked:
    """The fields of a Spider row."""
    return _text2sql.Asked(
        row.get("db_id"), row.get("question"), row.get("query"), difficulty=row.get("hardness")
    )


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    found = {name: _text2sql.find(args.source, name) for name in FILES}
    parts = [
        _text2sql.Part(FILES[name], file, file.parent / "database")
        for name, file in found.items()
        if file
    ]
    if not parts:
        raise Mistake(f"none of {', '.join(FILES)} in {args.source}")
    _text2sql.run("spider", args, parts, ask)
