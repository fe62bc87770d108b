"""Shared by `spider` and `bird`: questions with reference answers over a folder of SQLite databases.

Every reference answer is executed once, read-only and with a time limit; a row whose reference answer
fails, or whose database is missing, is bad. The schema in the prompt is read from the database itself.
"""

import argparse
import functools
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep import _dataset, _sqlite
from data_prep._read import Broken, read
from preflight.mistakes import Mistake

SYSTEM = (
    "You answer questions about a SQLite database. Think if you need to, then answer with one SQL "
    "query in a ```sql fenced block."
)
EXTRA = dict.fromkeys(["db", "db_id", "question", "difficulty"], pa.string())


@dataclass(frozen=True)
class Part:
    """One file of questions: its split, the file, and the folder of its databases."""

    split: str
    file: Path
    databases: Path


@dataclass(frozen=True)
class Asked:
    """The fields of a question, whatever the benchmark calls them."""

    db_id: Any
    question: Any
    reference: Any
    evidence: Any = ""
    difficulty: Any = None


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of both benchmarks."""
    parser.add_argument("source", type=Path, metavar="FOLDER", help="folder in the official layout")
    parser.add_argument(
        "--sample-rows",
        type=int,
        default=0,
        metavar="K",
        help="rows of each table that the prompt shows (0)",
    )
    parser.add_argument(
        "--val-share",
        type=_dataset.val_share,
        default=0.2,
        help="share of questions for validation, if there is only one split (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that split by database (0)")
    _dataset.add_options(parser, name)


def find(source: Path, name: str) -> Path | None:
    """The file `name` in the folder or in one of its sub-folders."""
    return next(
        (p for p in [source / name, *sorted(source.glob(f"*/{name}"))] if p.is_file()), None
    )


def split_databases(db_ids: Iterable[str], share: float, seed: int) -> set[str]:
    """The databases for validation: drawn until they hold `share` of the questions.

    `db_ids` has one id a question; at least one database is left for training.
    """
    questions = Counter(db_ids)
    order = sorted(questions)
    random.Random(seed).shuffle(order)
    chosen: set[str] = set()
    for db_id in order[:-1]:
        if sum(questions[c] for c in chosen) >= share * questions.total():
            break
        chosen.add(db_id)
    return chosen


class Benchmark:
    """Turns questions into rows; keeps the open databases and their schema texts."""

    def __init__(self, name: str, sample_rows: int):
        self.name = name
        self.empty_references = 0
        self.connect = functools.lru_cache(64)(_sqlite.connect)
        self.schema = functools.lru_cache(64)(
            lambda file: _sqlite.schema(self.connect(file), sample_rows)
        )

    def rows(self, asked: Asked, index: int, split: str, databases: Path) -> tuple[dict, dict]:
        """(RL row, SFT row). Raises ValueError with the reason if the question is unusable."""
        for field in ("db_id", "question", "reference"):
            value = getattr(asked, field)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{field}: empty or missing")
        if "```" in asked.reference:
            raise ValueError("reference: has a fence in it")
        db = (databases / asked.db_id / f"{asked.db_id}.sqlite").resolve()
        if not db.is_file():
            raise ValueError(f"db_id: no database file {db}")
        try:
            self.empty_references += _sqlite.execute(self.connect(db), asked.reference) == 0
            schema = self.schema(db)
        except (sqlite3.Error, TimeoutError) as error:
            raise ValueError(f"reference: {type(error).__name__}: {error}") from error
        evidence = f"Evidence: {asked.evidence}\n" if asked.evidence else ""
        prompt = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{schema}\n\n{evidence}Question: {asked.question}"},
        ]
        info = {"index": index, "split": split, "db": str(db), "db_id": asked.db_id}
        difficulty = None if asked.difficulty is None else str(asked.difficulty)
        info |= {"question": asked.question, "difficulty": difficulty}
        rl = {
            "data_source": self.name,
            "prompt": prompt,
            "ability": "text2sql",
            "reward_model": {"style": "rule", "ground_truth": asked.reference},
            "extra_info": info,
        }
        answer = {"role": "assistant", "content": f"```sql\n{asked.reference.strip()}\n```"}
        return rl, {"messages": [*prompt, answer]}


def run(
    name: str, args: argparse.Namespace, parts: list[Part], ask: Callable[[Mapping], Asked]
) -> None:
    """Make the dataset `name` from `parts`; `ask` maps a benchmark's row."""
    loaded = [(part, list(read(part.file))) for part in parts]  # at most some 10,000 questions
    val_ids: set[str] | None = None
    if len({part.split for part in parts}) == 1:
        ids = [str(row.get("db_id")) for _, rows in loaded for row in rows if isinstance(row, dict)]
        if len(set(ids)) < 2:
            raise Mistake(
                f"only {parts[0].file} is there: a split by database needs questions on two "
                f"databases at least, and it has {len(set(ids))}"
            )
        val_ids = split_databases(ids, args.val_share, args.seed)
        print(
            f"only {parts[0].file.name} is there: split by database, "
            f"{len(val_ids)} of {len(set(ids))} for validation"
        )
    benchmark = Benchmark(name, args.sample_rows)

    def keep(rows: _dataset.Rows, part: Part, number: int, row: dict | Broken) -> None:
        if isinstance(row, Broken):
            rows.reject(number, row.text, row.why)
            return
        asked, split = ask(row), part.split
        if val_ids is not None:
            split = "val" if str(asked.db_id) in val_ids else "train"
        try:
            index = rows.counts["read"] - 1  # of all files
            rl, sft = benchmark.rows(asked, index, split, part.databases)
        except (ValueError, OSError) as error:  # OSError: no name for a file, no permission
            rows.reject(number, row, str(error))
            return
        rows.add(number, row, rl, sft)

    def fill(rows: _dataset.Rows) -> None:
        for part, some in loaded:
            for number, row in rows.reading(some, part.file.name, len(some)):
                keep(rows, part, number, row)
        rows.notes["empty_references"] = benchmark.empty_references

    databases = [db for part in parts for db in part.databases.glob("*/*.sqlite")]
    _dataset.make(name, args, fill, EXTRA, [*{part.file for part in parts}, *databases])
