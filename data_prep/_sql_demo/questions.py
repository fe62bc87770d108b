"""Draws the questions of `sql_demo` and keeps those whose reference answer tells right from wrong.

A reference answer can be matched by luck: the filter that keeps every row, the highest value that is also the
total, a tie that makes the first three a matter of chance. `tells` executes simple wrong queries
beside the reference answer and drops the question if one of them gives the same result.
"""

import random
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from data_prep._sql_demo.databases import Database
from data_prep._sql_demo.draw import Draw, NotHere
from data_prep._sql_demo.templates import TEMPLATES

WRONG = (  # (what to find in a reference answer, what a simple mistake would put there)
    (r" WHERE [^()]+?(?= GROUP| ORDER|\)|$)", ""),
    (r" AND .+", ""),
    (r" HAVING .+", ""),
    (r" > ", " < "),
    (r" < ", " > "),
    (r" DESC LIMIT", " LIMIT"),
    (r"(ORDER BY \w+) LIMIT", r"\1 DESC LIMIT"),
    (r" LIMIT \d+", " LIMIT 1"),
    (r"\bAVG\(", "MAX("),
    (r"\bMAX\(", "MIN("),
    (r"\bMIN\(", "SUM("),
    (r"\bSUM\(", "MAX("),
    (r"DISTINCT ", ""),
    (r" NOT IN ", " IN "),
    (r"(?<!NOT) IN ", " NOT IN "),
    (r" = '", " <> '"),
)


class Exhausted(Exception):
    """The templates give no more new questions."""


@dataclass(frozen=True)
class Question:
    """A question in words with its reference SQL on database `db`; `plain` if only in plain words."""

    db: str
    text: str
    sql: str
    level: int
    template: str
    plain: bool


def mistakes(db: Database, sql: str) -> Iterator[str]:
    """Simple wrong versions of a reference answer: a clause left out, an operator or a literal exchanged."""
    for pattern, instead in WRONG:
        wrong, changed = re.subn(pattern, instead, sql, count=1)
        if changed:
            yield wrong
    values = {c.name: c.values for t in db.tables for c in t.of("group")}
    for column, value in re.findall(r"(\w+) = '([^']+)'", sql):
        for other in values.get(column, ()):
            if other != value:
                yield sql.replace(f"= '{value}'", f"= '{other}'")


def result(conn: sqlite3.Connection, sql: str) -> list[tuple]:
    """The rows of a query, sorted unless it orders them itself."""
    rows = conn.execute(sql).fetchall()
    return rows if "ORDER BY" in sql else sorted(rows, key=repr)


def tells(conn: sqlite3.Connection, db: Database, sql: str) -> bool:
    """Whether the reference answer's result is there, does not hang on a tie, and no simple mistake has it."""
    reference = result(conn, sql)
    if not reference or reference in ([(0,)], [(None,)]):
        return False
    if "ORDER BY" in sql:
        for tie in (", 1 LIMIT", ", 1 DESC LIMIT"):
            if result(conn, sql.replace(" LIMIT", tie)) != reference:
                return False
    return all(
        sorted(result(conn, w), key=repr) != sorted(reference, key=repr) for w in mistakes(db, sql)
    )


def draw(
    content: Iterable[tuple[Database, sqlite3.Connection]], levels: Iterable[int], seed: int
) -> Iterator[Question]:
    """Questions without end, no text twice, the levels in equal shares.

    The same content, levels and seed give the same questions. Raises Exhausted when 2000
    draws in a row bring nothing new.
    """
    content, levels = list(content), sorted(set(levels))
    rng, seen = random.Random(seed), set()
    while True:
        level = rng.choice(levels)
        for _ in range(2000):
            make, (db, conn) = rng.choice(TEMPLATES[level]), rng.choice(content)
            try:
                chance = Draw(db, conn, rng)
                sql, texts = make(chance)
            except NotHere:
                continue
            text = rng.choice(texts)
            if text not in seen and tells(conn, db, sql):
                break
        else:
            raise Exhausted(f"level {level} has run dry after {len(seen)} questions of all levels")
        seen.add(text)
        yield Question(db.name, text, sql, level, make.__name__, chance.plain)
