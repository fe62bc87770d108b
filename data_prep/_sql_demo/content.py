"""Fills the databases of `sql_demo`: DDL with constraints, and plausible seeded rows."""

import random
import sqlite3
from collections.abc import Iterator
from itertools import product

from data_prep._sql_demo.databases import Column, Database, Table

PEOPLE = (
    ("Ada", "Ben", "Cara", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jana", "Kai", "Lena",
     "Milo", "Nora", "Otto", "Pia"),
    ("Adler", "Berg", "Costa", "Diaz", "Evans", "Fox", "Grant", "Holm", "Ito", "Jansen", "Klein",
     "Lund", "Moro", "Novak"),
)  # fmt: skip
THINGS = (
    ("Blue", "Dark", "Golden", "Hidden", "Last", "Little", "Lost", "Quiet", "Red", "Silent",
     "Wild", "Young"),
    ("Bird", "Bridge", "Dream", "Fire", "Garden", "House", "Moon", "Ocean", "Road", "River",
     "Song", "Winter"),
)  # fmt: skip


def ddl(table: Table) -> str:
    """The table's CREATE TABLE statement, one column a line."""
    lines = ["id INTEGER PRIMARY KEY"]
    for c in table.columns:
        if c.kind == "label":
            lines.append(f"{c.name} TEXT NOT NULL UNIQUE")
        elif c.kind == "group":
            allowed = ", ".join(f"'{v}'" for v in c.values)
            lines.append(f"{c.name} TEXT NOT NULL CHECK ({c.name} IN ({allowed}))")
        elif c.kind == "number":
            rule = f"CHECK ({c.name} BETWEEN {c.low} AND {c.high})"
            lines.append(f"{c.name} INTEGER {'' if c.null else 'NOT NULL '}{rule}")
        else:
            lines.append(f"{c.name} INTEGER NOT NULL REFERENCES {c.parent}(id)")
    return f"CREATE TABLE {table.name} (\n  " + ",\n  ".join(lines) + "\n)"


class _Names:
    """Names of people and of things, each given once in a database."""

    def __init__(self, rng: random.Random):
        self.people, self.things = [
            rng.sample(names, len(names))
            for names in ([" ".join(pair) for pair in product(*pool)] for pool in (PEOPLE, THINGS))
        ]

    def next(self, label: Column) -> str:
        """A name for a row, of people or of things as its label column says."""
        return (self.people if label.people else self.things).pop()


def _rows(db: Database, table: Table, names: _Names, rng: random.Random) -> Iterator[tuple]:
    """The table's rows. Groups and keys are skewed, so that counts differ between them."""
    weights = {c.name: [rng.uniform(0.3, 2) for _ in c.values] for c in table.columns}

    def cell(c: Column) -> str | int | None:
        if c.kind == "label":
            return names.next(c)
        if c.kind == "group":
            return rng.choices(c.values, weights[c.name])[0]
        if c.kind == "number":
            return None if rng.random() < c.null else rng.randint(c.low, c.high)
        # The last eighth of the parents has no child: questions about "no ..." need some.
        parents = db.table(c.parent).rows * 7 // 8
        return 1 + int(parents * rng.random() ** 1.5)

    for i in range(1, table.rows + 1):
        yield (i, *(cell(c) for c in table.columns))


def fill(conn: sqlite3.Connection, db: Database, seed: int) -> None:
    """Create and fill `db` in an empty SQLite connection; the same seed gives the same content."""
    rng = random.Random(f"{seed} {db.name}")
    names = _Names(rng)
    conn.execute("PRAGMA foreign_keys = ON")
    with conn:
        for table in db.tables:
            conn.execute(ddl(table))
            marks = ", ".join("?" * (1 + len(table.columns)))
            conn.executemany(
                f"INSERT INTO {table.name} VALUES ({marks})", _rows(db, table, names, rng)
            )
