"""reward=sql and its data: several reference answers and databases, faults, row_faults."""

import asyncio
import contextlib
import math
import os
import sqlite3
import subprocess
import sys

import pytest
from sql_helpers import COUNT_TO, SCHEMA, make_database, outcome, score

from rewards.sql import compute_score, row_faults


def test_several_references(db):
    references = ["SELECT id FROM item", "SELECT name FROM item", "SELECT id, name FROM item"]
    assert outcome("SELECT name, id FROM item", references, db) == "match"
    assert outcome("SELECT price FROM item", references, db) == "mismatch"
    # A reference answer that does not run is left to row_faults while another one does.
    assert outcome("SELECT id FROM item", ["SELECT nosuch FROM item", references[0]], db) == "match"


def test_several_databases(db, tmp_path):
    other = make_database(tmp_path / "other.sqlite", SCHEMA + "DELETE FROM item WHERE id > 3;")
    reference = "SELECT count(*) FROM item"
    assert outcome("SELECT 5", reference, db) == "match"
    for info in (
        {"db": [db, other]},
        {"db": db, "extra_dbs": [other]},
        {"db": other, "extra_dbs": db},
    ):
        assert outcome("SELECT 5", reference, info) == "mismatch"
        assert outcome("SELECT count(id) FROM item", reference, info) == "match"
    # The same reference has to match on every database, not one here and another there.
    assert (
        outcome("SELECT 5", [reference, "SELECT count(*) + 2 FROM item"], {"db": [db, other]})
        == "mismatch"
    )
    assert outcome("SELECT 1", reference, {"db": [db, str(tmp_path / "none")]}) == "db_missing"


def test_a_reference_of_many_rows(db):
    many = COUNT_TO.format(30_000)
    assert outcome(many + " ORDER BY i DESC", many, db) == "match"
    assert outcome(many.replace("30000", "30001"), many, db) == "mismatch"


def test_bird_counts_different_rows(db):
    rows = COUNT_TO.format(12_000)
    thrice = f"{rows}, (SELECT 1 UNION SELECT 2 UNION SELECT 3)"
    assert outcome(thrice, rows, db, mode="bird") == "match"
    assert outcome(rows, thrice, db, mode="bird") == "match"
    assert outcome(thrice, rows, db, mode="spider") == "result_too_large"
    assert (
        outcome(rows.replace("SELECT i FROM", "SELECT i % 7 FROM"), "SELECT 1", db, mode="bird")
        == "mismatch"
    )
    assert outcome(rows, "SELECT 1", db, mode="bird") == "result_too_large"
    long = f"SELECT hex(zeroblob(400000)) FROM ({rows})".replace(
        "zeroblob(400000)", "printf('%400000s', 'x')"
    )
    one = long.split(" FROM (")[0]
    assert (
        outcome(f"{one} FROM item a, item b", one, db, mode="bird", max_bytes=1_000_000) == "match"
    )


def broken_name(tmp_path, script, name=b"caf\xe9"):
    path = make_database(tmp_path / "latin.sqlite", script)
    data = (tmp_path / "latin.sqlite").read_bytes()
    (tmp_path / "latin.sqlite").write_bytes(data.replace(b"cafZ", name))
    return path


@pytest.mark.parametrize("script", [
    "CREATE TABLE t (a, cafZ); INSERT INTO t VALUES (1, 2)", "CREATE TABLE t (a); CREATE TABLE cafZ (x)",
    "CREATE TABLE t (a) -- cafZ", "CREATE TABLE t (a); CREATE VIEW v AS SELECT 'cafZ'",
    "CREATE TABLE t (a); CREATE INDEX cafZ ON t (a)", "CREATE TABLE t (a DEFAULT 'cafZ')",
    "CREATE TABLE t (a); CREATE VIEW v AS SELECT a AS cafZ FROM t",
    "CREATE TABLE t (a); CREATE VIRTUAL TABLE cafZ USING fts5(x)",
])  # fmt: skip
def test_any_byte_may_stand_in_a_schema(tmp_path, script):
    path = broken_name(tmp_path, script)
    result = score("SELECT a FROM t", "SELECT a AS b FROM t", path)
    assert (result["outcome"], result["no_table_read"]) == ("match", 0.0)
    assert outcome("SELECT nosuch FROM t", "SELECT a FROM t", path) == "schema_error"
    assert score("SELECT * FROM t", "SELECT * FROM t", path)["outcome"] in ("match", "gold_error")
    assert (
        outcome("SELECT count(*) FROM t", "SELECT count(a) FROM t", path) == "match"
    )  # still alive


def test_a_log_beside_the_file_is_told(tmp_path):
    path = make_database(tmp_path / "wal.sqlite", "PRAGMA journal_mode=wal; CREATE TABLE t (a)")
    (tmp_path / "link").symlink_to(path)
    question = "SELECT count(*) FROM t", "SELECT count(a) FROM t"
    assert outcome(*question, path) == "match"
    (tmp_path / "wal.sqlite-wal").write_bytes(bytes(4096))  # nothing, which SQLite takes for no log
    assert outcome(question[0], f"{question[1]} -- nothing", path) == "match"
    (tmp_path / "wal.sqlite-wal").unlink()
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO t VALUES (1)")
        writer.commit()
        for name in (path, str(tmp_path / "link")):
            result = score(
                question[0], f"{question[1]} -- new", name
            )  # looked at with the reference
            assert (result["outcome"], result["masked"]) == ("db_missing", 1.0)
        (fault,) = row_faults([{"ground_truth": question[0], "db": path}])
        assert (
            "wal.sqlite-wal holds changes" in fault["message"] and "checkpoint" in fault["message"]
        )
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert (
            outcome("SELECT 1", f"{question[1]} -- new", path) == "match"
        )  # the log is there, and empty
    assert outcome("SELECT 1", question[0], path) == "match"


def test_a_journal_that_a_writer_left_is_told(tmp_path):
    path = make_database(tmp_path / "x.sqlite", "CREATE TABLE t (a)")
    question = "SELECT count(*) FROM t", "SELECT count(a) FROM t"
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size=5'); c.execute('BEGIN');"
        "c.executemany('INSERT INTO t VALUES (?)', [(i,) for i in range(50_000)]); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, path])
    assert outcome(*question, path) == "db_missing"
    (fault,) = row_faults([{"ground_truth": question[0], "db": path}])
    assert "x.sqlite-journal holds changes" in fault["message"]
    with contextlib.closing(sqlite3.connect(path)) as healer:
        healer.execute("PRAGMA journal_mode=persist")
        healer.execute("INSERT INTO t VALUES (1)")
        healer.commit()
    assert os.path.exists(path + "-journal")  # ended, and left there
    assert outcome("SELECT 1", question[0], path) == "match"


def test_values_as_long_as_the_file(tmp_path):
    path = make_database(tmp_path / "x.sqlite", "CREATE TABLE t (id, body)")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO t VALUES (1, ?), (2, 'yes')", ("x" * 1_500_000,))
        connection.commit()
    for sql, reference in (("length(body) FROM t WHERE id = 1", "1500000"),
                           ("id FROM t WHERE body LIKE 'y%'", "2"),
                           ("id FROM t WHERE substr(body, 1, 1) = 'x'", "1")):  # fmt: skip
        assert outcome(f"SELECT {sql}", f"SELECT {reference}", path) == "match"
    assert (
        outcome("SELECT replace(printf('%900000s', 'x'), ' ', 'abcdefghijk')", "SELECT 1", path)
        == "limit"
    )


WIDE = {
    "depth": "SELECT id FROM item WHERE " + " OR ".join(f"id = {i}" for i in range(300)),
    "selects": " UNION ALL ".join(f"SELECT {i}" for i in range(150)),
    "length": "SELECT '" + "x" * 30_000 + "'",
    "pattern": "SELECT 'a' LIKE '" + "%a" * 300 + "'",
    "value": "SELECT length(replace(printf('%900000s', 'x'), ' ', 'abc'))",
}


@pytest.mark.parametrize("kind", WIDE)
def test_limits_that_a_reference_answer_needs_are_its_own(db, kind):
    reference = WIDE[kind]
    assert outcome(reference, reference, db) == "match"
    assert outcome(f"{reference} -- so", [reference], db) == "match"
    assert outcome(reference, "SELECT 1", db) == "limit"  # and nobody else's
    assert outcome("SELECT -1", reference, db) == "mismatch"
    assert outcome("SELECT 1" + " UNION SELECT 1" * 600, reference, db) == "limit"
    assert row_faults([{"ground_truth": reference, "db": db}]) == []


@pytest.mark.parametrize("name", ["a b.sqlite", "a?b#c%20.sqlite", "数据-ü.sqlite", "a&mode=rw"])
def test_paths_that_need_quoting(tmp_path, name):
    folder = tmp_path / "da ta?#%"
    folder.mkdir()
    path = make_database(folder / name)
    assert outcome("SELECT count(*) FROM item", "SELECT count(id) FROM item", path) == "match"
    assert outcome("SELECT 1", "SELECT 1", "/" + path) == "match"  # two slashes: no host name


def test_relative_path(tmp_path, monkeypatch):
    for folder, rows in (("one", 5), ("two", 4)):
        (tmp_path / folder).mkdir()
        make_database(
            tmp_path / folder / "x.sqlite", SCHEMA + f"DELETE FROM item WHERE id > {rows};"
        )
        monkeypatch.chdir(tmp_path / folder)
        assert outcome(f"SELECT {rows}", "SELECT count(*) FROM item", "x.sqlite") == "match"


def test_database_faults(tmp_path, db):
    text, empty, torn = tmp_path / "text", tmp_path / "empty", tmp_path / "torn"
    text.write_text("this is no database, but it is long enough to have a header " * 30)
    empty.touch()
    with open(db, "rb") as file:
        torn.write_bytes(file.read(4096) + b"\xff" * 8192)
    for path in (text, empty, torn, tmp_path, tmp_path / "missing", "", None, 7, "a\0b"):
        result = score("SELECT count(*) FROM item", "SELECT count(*) FROM item", {"db": path})
        assert (result["outcome"], result["masked"]) == ("db_missing", 1.0), path
        assert math.isnan(result["score"]) and math.isnan(result["acc"])
    for info in ({}, {"extra_dbs": []}):
        assert outcome("SELECT 1", "SELECT 1", info) == "db_missing"
    assert asyncio.run(compute_score("", "", "SELECT 1"))["outcome"] == "db_missing"


@pytest.mark.parametrize(
    "reference", ["SELECT nosuch FROM item", "DROP TABLE item", "", None, [], 5, {}]
)
def test_reference_faults(db, reference):
    result = score("SELECT 1", reference, db)
    assert (result["outcome"], result["masked"], result["executed"]) == ("gold_error", 1.0, 0.0)
    assert math.isnan(result["score"]) and math.isnan(result["acc"])
    assert score("no sql at all", reference, db, fence=False)["outcome"] == "gold_error"


def test_a_hanging_reference_is_a_fault_of_the_data(db):
    reference = (
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"
    )
    assert outcome("SELECT 1", reference, db, reference_timeout_s=0.2) == "gold_error"


def test_a_changed_database_is_seen(tmp_path):
    path = make_database(tmp_path / "x.sqlite")

    def ask():
        return compute_score("", "```sql\nSELECT 5\n```", "SELECT count(*) FROM item", {"db": path})

    async def twice():
        first = await ask()
        make_database(path, "DELETE FROM item WHERE id = 1")
        return [first, *await asyncio.gather(ask(), ask()), await ask()]

    found = [result["outcome"] for result in asyncio.run(twice())]
    assert found == ["match", "mismatch", "mismatch", "mismatch"]


def test_the_database_file_is_untouched(tmp_path):
    path = make_database(tmp_path / "x.sqlite")
    before = (tmp_path / "x.sqlite").read_bytes()
    for sql in ("DELETE FROM item", "DROP TABLE item", "SELECT * FROM item", "REINDEX", "VACUUM"):
        score(sql, "SELECT * FROM item", path)
    assert (tmp_path / "x.sqlite").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.sqlite"]


def test_check_rows(db, tmp_path):
    def row(reference, path=db, **more):
        return {"reward_model": {"ground_truth": reference}, "extra_info": {"db": path}, **more}

    slow = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"
    rows = [
        row("SELECT 1"), row("SELECT nosuch"), row("SELECT 1", str(tmp_path / "none")),
        row("SELECT nosuch"), row(["SELECT 1", "SELECT nosuch2"]), row(slow),
        {"extra_info": {"db": db}}, row("SELECT 2"),
    ]  # fmt: skip
    faults = row_faults(iter(rows), reference_timeout_s=0.2)
    assert [(fault["index"], fault["outcome"]) for fault in faults] == [
        (1, "gold_error"), (2, "db_missing"), (3, "gold_error"), (4, "gold_error"),
        (5, "gold_error"), (6, "gold_error"),
    ]  # fmt: skip
    assert "nosuch" in faults[0]["message"] and "none" in faults[1]["message"]
    assert "timeout" in faults[4]["message"]
    assert row_faults([rows[0], rows[-1]]) == []

    async def inside_a_loop():
        return row_faults(rows[:2])

    assert [fault["index"] for fault in asyncio.run(inside_a_loop())] == [1]
    with pytest.raises(ValueError, match="mode"):
        row_faults(rows, mode="spyder")
    with pytest.raises(ValueError, match="reference_timeout_s"):
        row_faults(rows, reference_timeout=5)
