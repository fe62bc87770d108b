"""reward=sql and its data: several reference answers and databases, faults, row_faults."""

import asyncio
import math

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
