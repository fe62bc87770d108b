"""Random choices over one of the databases of `sql_demo` and its content, for one question."""

import random
import sqlite3

from data_prep._sql_demo.databases import Column, Database, Table

AGGREGATES = {
    "AVG": ("average", "mean"),
    "MAX": ("highest", "largest", "maximum"),
    "MIN": ("lowest", "smallest", "minimum"),
    "SUM": ("total", "summed"),
}


def rounded(value: int, column: Column) -> int:
    """A number as people put it into a question: 7, 35 (37), 450 (431), 1985 (1987)."""
    step = 5 if column.is_year else max(1, 10 ** (len(str(value)) - 1) // 2)
    return round(value / step) * step


PLAIN = 0.4


class NotHere(Exception):
    """This database has no table of the kind that a template asks for."""


class Draw:
    """Random choices over one database and its content, for one question."""

    def __init__(self, db: Database, conn: sqlite3.Connection, rng: random.Random):
        self.db, self.conn, self.rng = db, conn, rng
        self.one = rng.choice
        self.plain = True

    def value(self, table: Table, column: str) -> str | int:
        """The column's value in a random row (not NULL)."""
        rows = self.conn.execute(f"SELECT {column} FROM {table.name} WHERE {column} NOT NULL")
        return self.one(rows.fetchall())[0]

    def word(self, words: list | tuple):
        """One of several ways to put something; the first is the plain one."""
        if len(words) == 1 or self.rng.random() < PLAIN:
            return words[0]
        self.plain = False
        return self.one(words[1:])

    def table(self, *kinds: str) -> Table:
        """A table that has a column of each kind."""
        return self._one([t for t in self.db.tables if all(t.of(k) for k in kinds)])

    def _one(self, found: list):
        if not found:
            raise NotHere(self.db.name)
        return self.one(found)

    def join(self, *child: str) -> tuple[Table, Table, str]:
        """(child, parent, "child JOIN parent ON ..."); the child has a column of each kind."""
        c, key, p = self._one([j for j in self.db.joins() if all(j[0].of(k) for k in child)])
        return c, p, f"{c.name} JOIN {p.name} ON {c.name}.{key.name} = {p.name}.id"

    def aggregate(self, column: Column) -> tuple[str, str]:
        """(an aggregate function that says something about the column, the word for it)."""
        functions = ["MAX", "MIN"] if column.is_year else list(AGGREGATES)
        function = self.one(functions)
        return function, self.word(AGGREGATES[function])

    def filter(
        self, table: Table, kinds: str = "group number", dot: bool = False
    ) -> tuple[str, str]:
        """A condition on one column: (SQL, words); `dot` names the table in the SQL."""
        kind = self.one([k for k in kinds.split() if table.of(k)])
        column: Column = self.one(table.of(kind))
        name = f"{table.name}.{column.name}" if dot else column.name
        value = self.value(table, column.name)
        if kind == "group":
            says = self.word([f"with {column.called} V", *column.says])
            return f"{name} = '{value}'", says.replace("V", str(value))
        value, more = rounded(int(value), column), self.rng.random() < 0.5
        pair = (f"with {column.called} over V", f"with {column.called} under V")
        says = self.word([pair, column.says] if column.says else [pair])[0 if more else 1]
        return f"{name} {'>' if more else '<'} {value}", says.replace("V", str(value))

    def maybe_filter(self, table: Table, kinds: str = "group number") -> tuple[str, str]:
        """(" WHERE ...", " words") or two empty texts."""
        if self.rng.random() < 0.4:
            return "", ""
        sql, words = self.filter(table, kinds)
        return f" WHERE {sql}", f" {words}"
