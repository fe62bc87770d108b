"""Text-to-SQL made from code: six small SQLite databases, questions in five levels, no network.

Levels: 1 filters and counts of one table, 2 aggregates and ORDER BY ... LIMIT, 3 joins of two
tables, 4 GROUP BY and HAVING, 5 subqueries and CTEs. The prompt is a compact schema and the
question, short enough for `tiny_model` on a CPU; the answer is a ```sql fenced block.
Every question of RL is also a preference pair (the reference answer, and a query with another result)
and a chain for process rewards (a clause is a step; half of the chains are wrong from some step on).
SFT rows ask in plain words only ("with price under 20"), RL and validation rows in free words, too
("cheaper than 20 dollars"). And the SFT training answers are sloppy, as cheap labels are: most of them
find the right rows, but with SELECT * instead of the columns that were asked for (--sloppy). So RL can
learn something that SFT does not show, from the reward alone. No validation question is in training,
nor is its (database, reference SQL).
"""

import argparse
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from data_prep import _dataset, _schema
from data_prep._sql_demo.content import fill
from data_prep._sql_demo.databases import DATABASES, Database
from data_prep._sql_demo.pairs import all_columns, chain, fenced, wrong
from data_prep._sql_demo.questions import Exhausted, Question, draw
from preflight.mistakes import Mistake

EXTRA = dict.fromkeys(["db", "db_id", "template", "question"], pa.string()) | {"level": pa.int64()}
SCHEMA = {db.name: db.compact() for db in DATABASES}
LEVELS = (1, 2, 3, 4, 5)


def _levels(text: str) -> list[int]:
    """The value of --levels."""
    levels = sorted({int(level) for level in text.split(",")})
    if not set(levels) <= set(LEVELS):
        raise argparse.ArgumentTypeError(f"{text}: levels are 1 to 5, as in 1,2,3")
    return levels


def _positive(text: str) -> int:
    """A number of rows."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of rows")
    return int(text)


def _share(text: str) -> float:
    """A number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return float(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this source."""
    parser.add_argument(
        "--levels",
        type=_levels,
        default=list(LEVELS),
        help="levels of the questions, in equal shares (1,2,3,4,5)",
    )
    for name, rows in {"train": 4000, "val": 256, "sft": 4000}.items():
        parser.add_argument(
            f"--{name}-rows", type=_positive, default=rows, metavar="N", help="(%(default)s)"
        )
    parser.add_argument(
        "--sloppy",
        type=_share,
        default=0.6,
        help="share of SFT training answers with SELECT * (%(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the databases and of the questions (0)"
    )
    _dataset.add_options(parser, "sql_demo", rejects=False)


def content(seed: int, folder: Path | None = None) -> list[tuple[Database, sqlite3.Connection]]:
    """The filled databases: files `ID.sqlite` in `folder`, or in memory without one."""
    if folder:
        folder.mkdir()
    opened = []
    for db in DATABASES:
        conn = sqlite3.connect(folder / f"{db.name}.sqlite" if folder else ":memory:")
        fill(conn, db, seed)
        opened.append((db, conn))
    return opened


def prompt(question: Question) -> list[dict[str, str]]:
    """The messages that ask a question."""
    return [{"role": "user", "content": f"{SCHEMA[question.db]}\n{question.text}"}]


def answer(sql: str) -> dict[str, str]:
    """The assistant's message with the query."""
    return {"role": "assistant", "content": fenced(sql)}


def judged(
    question: Question, db: Database, conn: sqlite3.Connection, rng: random.Random
) -> dict[str, dict]:
    """A question as a preference pair and as a chain of labelled steps; {} if no query is wrong."""
    bad = wrong(conn, db, question.sql, rng)
    if bad is None:
        return {}
    asked = prompt(question)
    pair = _schema.preference_row(asked, fenced(question.sql), fenced(bad))
    steps, labels = chain(bad if rng.random() < 0.5 else question.sql, question.sql)
    process = {"prompt": asked, "steps": steps, "labels": labels}
    return {"preference": pair, "process": process}


def rl_row(question: Question, index: int, split: str, databases: Path) -> dict:
    """The RL row of a question; `databases` is where the finished files will be."""
    return {
        "data_source": "sql_demo",
        "prompt": prompt(question),
        "ability": "text2sql",
        "reward_model": {"style": "rule", "ground_truth": question.sql},
        "extra_info": {
            "index": index,
            "split": split,
            "db": str(databases / f"{question.db}.sqlite"),
            "db_id": question.db,
            "template": question.template,
            "question": question.text,
            "level": question.level,
        },
    }


def deal(
    questions: Iterator[Question], sizes: dict[str, int]
) -> Iterator[tuple[str, int, Question]]:
    """(split, index in it, question); val comes first, its reference answers are kept out of the others."""
    held: set[tuple[str, str]] = set()
    for split, size in sizes.items():
        index = 0
        while index < size:
            question = next(questions)
            reference = (question.db, question.sql)
            if split == "val":
                held.add(reference)
            elif reference in held or (split == "sft" and not question.plain):
                continue
            yield split, index, question
            index += 1


def run(args: argparse.Namespace) -> None:
    """Make the dataset."""
    databases = args.out.resolve() / "databases"
    sizes = {"val": args.val_rows, "train": args.train_rows, "sft": args.sft_rows}

    def fill_rows(rows: _dataset.Rows) -> None:
        opened = content(args.seed, rows.folder / "databases")
        dealt = deal(draw(opened, args.levels, args.seed), sizes)
        rng, judge = random.Random(args.seed), random.Random(f"{args.seed} judged")
        where = {db.name: (db, conn) for db, conn in opened}
        try:
            for _, (split, index, question) in rows.reading(dealt, "sql_demo", sum(sizes.values())):
                sloppy = split == "sft" and rng.random() < args.sloppy
                sql = all_columns(question.sql) if sloppy else question.sql
                sft = {"messages": [*prompt(question), answer(sql)]}
                if split == "sft":
                    rows.add_sft("train", sft)
                else:
                    rl = rl_row(question, index, split, databases)
                    forms = judged(question, *where[question.db], judge)
                    rows.add(index, question.text, rl, sft if split == "val" else None, **forms)
        except Exhausted as error:
            raise Mistake(f"{error}: ask for fewer rows or for more --levels") from None
        for _, conn in opened:
            conn.close()

    _dataset.make("sql_demo", args, fill_rows, EXTRA)
