"""reward=sql on DuckDB."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from helpers import ROOT
from sql_helpers import score
from sql_servers import SHOP

from rewards.sql import compute_score, row_faults
from rewards.sql_process import compute_score as with_steps

REFERENCE = "SELECT name, price FROM item"
LOOP = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"


def make(path, more=""):
    with duckdb.connect(str(path)) as connection:
        connection.execute(SHOP + "CREATE SEQUENCE serial;" + more)
    return f"duckdb://{path}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return make(tmp_path_factory.mktemp("duckdb") / "a shop.duckdb")


def outcome(sql, url, reference=REFERENCE, **options):
    return score(sql, reference, url, **options)["outcome"]


@pytest.mark.parametrize("sql, wanted", [
    ("SELECT price, name FROM item ORDER BY id DESC", "match"), ("FROM item", "mismatch"),
    ("SELECT DISTINCT name, price FROM item", "match"),  # both without DISTINCT
    ("SELECT name FROM item", "mismatch"), ("SELECT 1", "mismatch"), ("SELECT name FROM", "syntax_error"),
    ("SELECT name, price FROM nosuch", "schema_error"), ("SELECT nosuch FROM item", "schema_error"),
    ("SELECT nosuch(1)", "schema_error"), ("SELECT a.id FROM item b", "schema_error"),
    ("SELECT CAST(name AS INT) FROM item", "runtime_error"), ("SELECT name, max(id) FROM item", "runtime_error"),
    ("SELECT error('x')", "runtime_error"), ("SELECT 1; SELECT 2", "multiple_statements"),
    ("-- nothing", "no_sql"), ("EXPLAIN SELECT 1", "not_select"), ("SELECT * FROM range(100000)", "result_too_large"),
    ("SELECT repeat('x', 9000000)", "result_too_large"), ("SELECT repeat('x', 3000000000)", "memory"),
    ("SELECT list(a.range) FROM range(1000000000) a", "memory"),
    ("SELECT '\ud800'", "syntax_error"), ("SELECT \0 1", "syntax_error"),
    ("SELECT " + "(" * 3000 + "1" + ")" * 3000, "limit"),
])  # fmt: skip
def test_outcomes(shop, sql, wanted):
    assert outcome(sql, shop, timeout_s=10, keep_distinct=False) == wanted


HOSTILE = """COPY item TO '{folder}/x'; DELETE FROM item; DROP TABLE item; INSTALL httpfs; LOAD httpfs
ATTACH '{folder}/x' AS x; EXPORT DATABASE '{folder}/x'; SET threads = 8; PRAGMA database_list; CHECKPOINT
CREATE TEMP TABLE t (i INT); BEGIN; CALL pragma_version(); SET enable_external_access = true; VACUUM
SELECT nextval('serial'); WITH x AS (DELETE FROM item RETURNING id) SELECT * FROM x; RESET threads
SELECT * FROM read_csv('/etc/passwd'); SELECT * FROM read_text('/proc/self/environ')
SELECT * FROM glob('/etc/*'); SELECT * FROM read_blob('/etc/passwd'); SELECT * FROM sniff_csv('/etc/passwd')
SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')'); SELECT * FROM duckdb_secrets()"""


@pytest.mark.parametrize("sql", [sql for line in HOSTILE.split("\n") for sql in line.split("; ")])
def test_hostile_sql_is_forbidden(shop, tmp_path, sql):
    path = Path(shop.removeprefix("duckdb://"))
    before, there = path.read_bytes(), sorted(path.parent.iterdir())
    assert outcome(sql.format(folder=tmp_path, file=path), shop) == "forbidden"
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == (before, there)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sql", [
    "SELECT * FROM '/etc/passwd'", "SELECT getenv('HOME')", "SELECT * FROM shop", "SELECT * FROM connection",
    "SELECT * FROM self", "SELECT set_config('threads', '4')", "SELECT * FROM sqlite_scan('/tmp/a', 'b')",
])  # fmt: skip
def test_there_is_no_way_out_by_name(shop, sql):
    assert outcome(sql, shop) == "schema_error"


def test_the_time_limit(shop):
    start = time.monotonic()
    for sql in (LOOP, "SELECT count(*) FROM range(1000000) a, range(10000000) b"):
        assert outcome(sql, shop, timeout_s=0.3, grace_s=20) == "timeout"
    assert time.monotonic() - start < 20
    assert outcome(REFERENCE, shop, timeout_s=0.3, grace_s=20) == "match"


def test_what_does_not_stop_is_killed(shop):
    """One row of one operator: nothing in DuckDB looks at the clock meanwhile."""
    sql = "SELECT sum(levenshtein(repeat('a', 30000), repeat('b', 30000 + i::INT))) FROM range(9) t(i)"
    assert outcome(sql, shop, timeout_s=0.1, grace_s=0.1) == "killed"
    assert outcome(REFERENCE, shop) == "match"


def test_the_modes(shop):
    ordered = REFERENCE + " ORDER BY id"
    assert outcome(ordered + " DESC", shop, ordered) == "mismatch"
    twice = "SELECT name FROM item WHERE name = 'gear'"
    once = "SELECT DISTINCT name FROM item WHERE name = 'gear'"
    found = {"spider": outcome(once, shop, twice, keep_distinct=False), "keep": outcome(once, shop, twice),
             "bird": outcome(once, shop, twice, mode="bird"),
             "strict": outcome(once, shop, twice, mode="strict")}  # fmt: skip
    assert found == {"spider": "match", "keep": "mismatch", "bird": "match", "strict": "mismatch"}
    assert outcome("SELECT 0.1::DOUBLE + 0.2", shop, "SELECT 0.3") == "mismatch"
    assert outcome("SELECT 0.1::DOUBLE + 0.2", shop, "SELECT 0.3", mode="strict") == "match"
    on = "SELECT DISTINCT ON (name) name FROM item"
    assert outcome(on, shop, "SELECT name FROM item GROUP BY name") == "match"


@pytest.mark.parametrize("left, right", [
    ("1.50::DECIMAL(5,2)", "1.5::DOUBLE"), ("true", "1"), ("2::HUGEINT", "2.0::FLOAT"), ("NULL", "NULL"),
    ("DATE '2020-01-02'", "'2020-01-02'"), ("[1, 2.0]", "[1.0, 2]"), ("{'a': 1}", "{'a': 1.0}"),
    ("'ab'::BLOB", "'ab'::BLOB"), ("12345678901234567890::DECIMAL(38,2)", "12345678901234567890::UBIGINT"),
])  # fmt: skip
def test_values_that_are_equal(shop, left, right):
    assert outcome(f"SELECT {left}", shop, f"SELECT {right}") == "match"


@pytest.mark.parametrize("left, right", [("'1'", "1"), ("'ab'::BLOB", "'ab'"), ("NULL", "0")])
def test_values_that_are_not(shop, left, right):
    assert outcome(f"SELECT {left}", shop, f"SELECT {right}") == "mismatch"


@pytest.mark.parametrize("left, right", [
    ("{}'2024-01-02 03:04:05.123456789'::TIMESTAMP_NS{}", "{}'2024-01-02 03:04:05.123456788'::TIMESTAMP_NS{}"),
    ("12345678901234567890123456.1::DECIMAL(38,1)", "12345678901234567890123456.2::DECIMAL(38,1)"),
    ("0.12345678901234567891::DECIMAL(30,20)", "0.12345678901234567892::DECIMAL(30,20)"),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["spider", "bird"])
def test_digits_that_python_would_lose(shop, left, right, mode):
    for before, after in (("", ""), ("[", "]"), ("{'t': ", "}")) if "{}" in left else [("", "")]:
        first, second = left.format(before, after), right.format(before, after)
        assert outcome(f"SELECT {first}", shop, f"SELECT {second}", mode=mode) == "mismatch"
        rows = "SELECT a, a AS a, b FROM (VALUES ({}, 1), ({}, 2)) t(a, b) ORDER BY b"
        assert (
            outcome(rows.format(first, second), shop, rows.format(first, second), mode=mode)
            == "match"
        )
    many = f"SELECT {left.format('', '')} FROM range(20000)"
    assert outcome(many, shop, "SELECT 1", mode="spider") == "result_too_large"
    assert outcome(many, shop, f"SELECT {left.format('', '')}", mode="bird") == "match"
    late = f"{many} UNION ALL SELECT {right.format('', '')}"
    assert outcome(late, shop, f"SELECT {left.format('', '')}", mode="bird") == "mismatch"


def test_nan_in_any_order(shop):
    rows = "SELECT * FROM (VALUES (1, {}), (2, {})) t"
    nan, other_nan = "'nan'::DOUBLE", "'inf'::DOUBLE - 'inf'::DOUBLE"  # of another sign
    for mode in ("strict", "spider", "bird"):
        assert (
            outcome(rows.format(nan, other_nan), shop, rows.format(other_nan, nan), mode=mode)
            == "match"
        )
    shuffled = "SELECT * FROM (VALUES (2, 'nan'::DOUBLE), (1, 3.0)) t"
    assert outcome(shuffled, shop, rows.format("3.0", nan), mode="strict") == "match"
    assert (
        outcome("SELECT 'nan'::DOUBLE FROM range(20000)", shop, f"SELECT {nan}", mode="bird")
        == "match"
    )


def test_strict_knows_the_order_in_brackets(shop):
    for reference in ("(FROM item ORDER BY id DESC)", "FROM item ORDER /* so */ BY id DESC"):
        assert outcome("(FROM item ORDER BY id)", shop, reference, mode="strict") == "mismatch"
        assert outcome("FROM item ORDER BY id DESC", shop, reference, mode="strict") == "match"


def test_identical_answers_run_once_and_what_they_say(shop):
    async def ask():
        text = "```sql\nSELECT count(*) -- once\nFROM item\n```"
        call = [compute_score("", text, "SELECT 5", {"db": shop}) for _ in range(8)]
        return await asyncio.gather(*call)

    results = asyncio.run(ask())
    assert [result["outcome"] for result in results] == ["match"] * 8
    assert sum(result["cache_hit"] for result in results) == 7
    assert results[0]["no_table_read"] == 0.0 and results[0]["rows"] == 1.0
    assert score("SELECT 'item', 5 -- item", "SELECT 5", shop)["no_table_read"] == 1.0


def test_a_changed_file_is_seen(tmp_path):
    url = make(tmp_path / "x.duckdb")
    assert outcome("SELECT 5", url, "SELECT count(*) FROM item") == "match"
    make(tmp_path / "y.duckdb", "DELETE FROM item WHERE id = 1;")
    os.replace(tmp_path / "y.duckdb", tmp_path / "x.duckdb")
    assert outcome("SELECT 4", url, "SELECT count(*) FROM item") == "match"
    assert outcome("SELECT 5", url, "SELECT count(*) FROM item") == "mismatch"


def test_files_of_several_engines(shop, db):
    """A reference answer must match on every one, whatever it is."""
    for databases in ([shop, db], [db, shop]):
        assert outcome("SELECT 5", {"db": databases}, "SELECT count(*) FROM item") == "match"
        assert outcome("SELECT id FROM item", {"db": databases}) == "mismatch"


def test_a_file_that_is_being_written(tmp_path):
    url = make(tmp_path / "x.duckdb")
    with duckdb.connect(str(tmp_path / "x.duckdb")):
        assert outcome("SELECT 5", url) == "db_missing"
        (fault,) = row_faults([{"ground_truth": "SELECT 5", "db": url}])
        assert "lock" in fault["message"]


def test_more_files_than_are_kept_open(tmp_path):
    urls = [make(tmp_path / f"{i}.duckdb", f"DELETE FROM item WHERE id > {i};") for i in range(6)]
    for _ in range(2):
        for i, url in enumerate(urls):
            assert (
                outcome(f"SELECT {min(i, 5)} -- {_}", url, "SELECT count(*) FROM item") == "match"
            )


def test_steps(shop):
    sql = "WITH a AS (SELECT id FROM item), b AS (SELECT max(id) AS m FROM a) SELECT m FROM b"
    text = f"```sql\n{sql}\n```"
    result = asyncio.run(with_steps("", text, "SELECT max(id) FROM item", {"db": shop}))
    assert (result["outcome"], result["steps_good"]) == ("match", 2.0)


def test_check_rows_and_the_command_line(shop, tmp_path):
    rows = tmp_path / "rows.jsonl"
    references = [REFERENCE, "SELECT nosuch FROM item", "DROP TABLE item"]
    answer = f"```sql\n{REFERENCE}\n```"
    given = [{"ground_truth": r, "db": str(shop), "response": answer} for r in references]
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in given))
    command = [sys.executable, "-m", "rewards", "sql", "--file", rows]
    check = subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True, text=True)
    assert check.returncode == 2 and "3 rows, 2 with faults" in check.stdout
    assert "schema_error" in check.stderr and "forbidden" in check.stderr and shop in check.stderr
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "match" in done.stdout and "gold_error" in done.stdout, done.stdout + done.stderr
