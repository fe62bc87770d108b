"""Preference pairs and labelled chains of `sql_demo`, from questions and their reference SQL.

The wrong side is a query of the kind that a model writes: sloppy (SELECT * instead of what was
asked), or with one simple mistake (`_demo_questions.mistakes`). Executed, its result differs from
the reference answer's, so right and wrong are facts and not a matter of taste.

A chain is the answer with a clause a step and a blank line between steps, which is still the same
query. Its steps are right (1) up to the first that the right chain has not in its place; from there
on they are wrong (0). A query that ends too early is wrong where it ends: the closing fence belongs
to the last step.
"""

import random
import re
import sqlite3

from data_prep._sql_demo.databases import Database
from data_prep._sql_demo.questions import mistakes, result

CLAUSE = re.compile(r" (?=(?:SELECT|FROM|WHERE|GROUP BY|HAVING|ORDER BY)\b)")


def all_columns(sql: str) -> str:
    """The query with everything selected: the right rows, not what was asked."""
    return re.sub(r"^SELECT .+? FROM", "SELECT * FROM", sql)


def fenced(sql: str) -> str:
    """The text of an answer."""
    return f"```sql\n{sql}\n```"


def wrong(conn: sqlite3.Connection, db: Database, sql: str, rng: random.Random) -> str | None:
    """A query with another result than the reference answer `sql`: sloppy or mistaken, one as often as the other."""
    kinds = [[all_columns(sql)], list(mistakes(db, sql))]
    rng.shuffle(kinds)
    reference = sorted(result(conn, sql), key=repr)
    for queries in kinds:
        rng.shuffle(queries)
        for query in queries:
            if sorted(result(conn, query), key=repr) != reference:
                return query
    return None


def steps(sql: str) -> list[str]:
    """The answer in steps: the clauses of the outermost query, and each WITH as one."""
    clauses, depth, begin = [], 0, 0
    for i, character in enumerate(sql):
        depth += (character == "(") - (character == ")")
        if depth == 0 and CLAUSE.match(sql, i):
            clauses.append(sql[begin:i])
            begin = i + 1
    return fenced("\n\n".join([*clauses, sql[begin:]])).split("\n\n")


def chain(sql: str, reference: str) -> tuple[list[str], list[float]]:
    """The steps of the query `sql` and their labels, by the reference answer's steps."""
    made, right, good = steps(sql), steps(reference), True
    labels = []
    for i, step in enumerate(made):
        good = good and i < len(right) and step == right[i]
        labels.append(float(good))
    return made, labels
