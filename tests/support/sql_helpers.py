"""What the tests of reward=sql share: a small database, one call, processes."""

import asyncio
import sqlite3
import time

import psutil

from rewards.sql import compute_score

KEYS = {
    "score", "acc", "outcome", "executed", "masked", "empty_gold", "no_table_read", "rows",
    "exec_ms", "cache_hit",
}  # fmt: skip
SCHEMA = """
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INTEGER);
INSERT INTO item VALUES (1, 'nut', 0.5, 10), (2, 'bolt', 1.0, 5), (3, 'gear', 2.5, 5),
                        (4, 'gear', 2.5, 0), (5, NULL, 7.25, NULL);
CREATE TABLE flag (a INTEGER, b INTEGER);
INSERT INTO flag VALUES (0, 1), (0, 0), (1, 1), (1, 0);
CREATE VIRTUAL TABLE note USING fts5(body);
INSERT INTO note VALUES ('a blue gear');
"""
NUMBERS = """
CREATE TABLE n (i INTEGER);
INSERT INTO n WITH RECURSIVE r(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM r LIMIT 100) SELECT i FROM r;
"""
LOOP = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"
COUNT_TO = (
    "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT {}) SELECT i FROM r"
)


def make_database(path, script=SCHEMA):
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return str(path)


def score(sql, reference, db, fence=True, **options):
    text = f"<think>hm</think>\n```sql\n{sql}\n```" if fence else sql
    info = db if isinstance(db, dict) else {"db": db}
    result = asyncio.run(compute_score("test", text, reference, info, **options))
    assert result.keys() == KEYS
    assert all(type(value) is float for key, value in result.items() if key != "outcome")
    return result


def ask(sql, reference, db, **options):
    return compute_score("", f"```sql\n{sql}\n```", reference, {"db": db}, **options)


def outcome(*arguments, **options):
    return score(*arguments, **options)["outcome"]


MODES = {
    "spider": {"keep_distinct": False},
    "keep": {"keep_distinct": True},
    "bird": {"mode": "bird"},
    "strict": {"mode": "strict"},
}


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants(pid):
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)
