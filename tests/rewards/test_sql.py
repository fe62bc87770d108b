"""reward=sql from outside: modes, outcome classes, limits, flags."""

import pytest
from sql_helpers import COUNT_TO, MODES, outcome, score

from rewards._sql.shaping import OUTCOMES


@pytest.mark.parametrize(
    ("sql", "reference", "matching"),
    [
        ("SELECT id FROM item ORDER BY id DESC", "SELECT id FROM item", "spider keep bird strict"),
        ("SELECT id FROM item ORDER BY id DESC", "SELECT id FROM item ORDER BY id", "bird"),
        ("SELECT id FROM item LIMIT 9", "SELECT id FROM item ORDER  BY -id", "spider keep bird"),
        (
            "SELECT id FROM item WHERE id IN (SELECT id FROM item) ORDER BY id DESC",
            "SELECT id FROM item WHERE id IN (SELECT id FROM item order by id)",
            "bird strict",
        ),
        ("SELECT name, id FROM item", "SELECT id, name FROM item", "spider keep"),
        ("SELECT DISTINCT name FROM item", "SELECT name FROM item", "spider bird"),
        ("SELECT count(DISTINCT name) FROM item", "SELECT count(name) FROM item", "spider"),
        ("SELECT name FROM item UNION ALL SELECT name FROM item", "SELECT name FROM item", "bird"),
        ("SELECT id FROM item WHERE id > = 3", "SELECT id FROM item WHERE id >= 3", "spider keep"),
        ("SELECT 1.0", "SELECT 1", "spider keep bird strict"),
        ("SELECT '1'", "SELECT 1", ""),
        ("SELECT NULL", "SELECT name FROM item WHERE id = 5", "spider keep bird strict"),
        ("SELECT ''", "SELECT name FROM item WHERE id = 5", ""),
        ("SELECT x'61'", "SELECT 'a'", ""),
        ("SELECT 1 WHERE 0", "SELECT id, name FROM item WHERE id > 9", "spider keep bird strict"),
        ("SELECT 0.1 + 0.2", "SELECT 0.3", "strict"),
        ("SELECT 0.30001", "SELECT 0.3", ""),
        ("SELECT id, name, 1 FROM item", "SELECT id, name FROM item", ""),
        ("SELECT a, b FROM flag", "SELECT b, a FROM flag", "spider keep bird strict"),
        ("SELECT a, a FROM flag", "SELECT a, b FROM flag", ""),
        ("SELECT -1", "SELECT -2", ""),
        ("SELECT 9007199254740993", "SELECT 9007199254740992.0", "strict"),
        # The public Spider evaluator sorts values as text, so it tells these apart, as nobody else.
        ("SELECT 1.0, 10.0, '1.x'", "SELECT 1, 10, '1.x'", "bird strict"),
        ("SELECT CAST(x'41ff42' AS TEXT)", "SELECT 'AB'", "spider keep strict"),
        ("SELECT 'a distinct b'", "SELECT 'a distinct b'", "spider keep bird strict"),
        ("SELECT 1 IS NOT DISTINCT FROM 1", "SELECT 1", "spider keep bird strict"),
    ],
)  # fmt: skip
def test_modes(db, sql, reference, matching):
    found = {name for name, options in MODES.items() if score(sql, reference, db, **options)["acc"]}
    assert found == set(matching.split())


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) FROM item", "match"),
        ("SELECT count(*) FROM item ; -- done", "match"),
        ("SELECT count(*) FROM item WHERE name <> 'a;b' OR 1", "match"),
        ("SELECT 4", "mismatch"),
        ("SELECT sum(value) FROM json_each('[1, 2, 3]')", "mismatch"),
        ("SELECT body FROM note WHERE note MATCH 'blue'", "mismatch"),
        ("-- nothing", "no_sql"),
        ("SELEC 1", "syntax_error"),
        ("SELECT 'open", "syntax_error"),
        ("SELECT 1\0", "syntax_error"),
        ("SELECT '\ud800'", "syntax_error"),
        ("I cannot answer this question.", "syntax_error"),
        ("SELECT nosuch FROM item", "schema_error"),
        ('SELECT 1 FROM "file is not a database"', "schema_error"),
        ("SELECT nosuch(1)", "schema_error"),
        ("SELECT abs(-9223372036854775808)", "runtime_error"),
        ("SELECT ?", "runtime_error"),
        ("SELECT count(count(*)) FROM item", "runtime_error"),
        ("DELETE FROM item", "forbidden"),
        ("WITH x AS (SELECT 1) DELETE FROM item RETURNING 5", "forbidden"),
        ("PRAGMA writable_schema = 1", "forbidden"),
        ("SELECT * FROM pragma_table_info('item')", "forbidden"),
        ("ATTACH DATABASE '/tmp/other.db' AS o", "forbidden"),
        ("VACUUM INTO '/tmp/other.db'", "forbidden"),
        ("CREATE TRIGGER t AFTER INSERT ON item BEGIN SELECT 1; END", "forbidden"),
        ("BEGIN", "forbidden"),
        ("SELECT random()", "forbidden"),
        ("SELECT zeroblob(9)", "forbidden"),
        ("SELECT load_extension('libm.so')", "forbidden"),
        ("SELECT sql FROM sqlite_stmt", "forbidden"),
        ("EXPLAIN SELECT 1", "not_select"),
        ("/* x */ explain query plan SELECT 1", "not_select"),
        ("SELECT 1; SELECT 2", "multiple_statements"),
        ("SELECT count(*) FROM item; DROP TABLE item", "multiple_statements"),
        ("SELECT " + "1+" * 300 + "1", "limit"),
        ("SELECT 1" + " UNION ALL SELECT 1" * 100, "limit"),
        ("SELECT 1 -- " + "x" * 20_000, "limit"),
        ("SELECT 1 -- " + "\u00e4" * 10_000, "limit"),
        ("SELECT 'a' LIKE '" + "%a" * 300 + "'", "limit"),
        ("SELECT printf('%.*c', 999999, 'x') || 'xx'", "limit"),
        (
            "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT i FROM r",
            "result_too_large",
        ),
        (
            "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT 9)"
            " SELECT printf('%.*c', 999999, 'x') FROM r",
            "result_too_large",
        ),
    ],
)
def test_outcome_classes(db, sql, expected):
    result = score(sql, "SELECT count(*) FROM item", db)
    assert result["outcome"] == expected
    assert expected in OUTCOMES
    assert result["executed"] == float(expected in ("match", "mismatch"))
    assert result["acc"] == float(expected == "match")
    assert result["masked"] == 0.0


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r",
            "timeout",
        ),
        (
            "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT 99) SELECT"
            " sum(instr(printf('%.*c', 999999, 'a'), printf('%.*c', 499999, 'a') || 'b')) FROM r",
            "killed",
        ),
    ],
)
def test_time_limit(db, sql, expected):
    result = score(sql, "SELECT 1", db, timeout_s=0.2, grace_s=0.5)
    assert result["outcome"] == expected
    assert score("SELECT 2", "SELECT 2", db, timeout_s=0.2, grace_s=0.5)["acc"] == 1.0
    if expected == "timeout":
        assert 190 < result["exec_ms"] < 2000


def test_limits_are_options(db):
    rows = COUNT_TO.format(200)
    assert outcome(rows, "SELECT 1", db, max_rows=100) == "result_too_large"
    assert outcome(rows, "SELECT 1", db, max_bytes=200) == "result_too_large"
    assert outcome(rows, "SELECT 1", db, max_rows=200) == "mismatch"
    # Twice the reference answer's are always allowed.
    half = rows.replace("200", "100")
    assert outcome(rows, half, db, max_rows=10, max_bytes=10) == "mismatch"
    assert outcome(rows.replace("200", "201"), half, db, max_rows=10) == "result_too_large"
    wide = "SELECT " + ", ".join(["printf('%.*c', 999999, 'x')"] * 100)
    slow = {"timeout_s": 30.0}  # on a machine with much else to do
    assert outcome(wide, "SELECT 1", db, memory_mib=128, **slow) == "memory"
    assert outcome(wide, "SELECT 1", db, **slow) == "result_too_large"


def test_flags_for_logging(db):
    constant = score("WITH q AS (SELECT 5) SELECT * FROM q", "SELECT count(*) FROM item", db)
    assert (constant["acc"], constant["no_table_read"]) == (1.0, 1.0)
    assert score("SELECT count(*) FROM q, item", "SELECT 5", db)["outcome"] == "schema_error"
    assert score("SELECT count(*) FROM ITEM", "SELECT 5", db)["no_table_read"] == 0.0
    assert score("SELECT nosuch", "SELECT 5", db)["no_table_read"] == 0.0
    shadow = "WITH item AS (SELECT 5 AS n) SELECT n FROM item"
    assert score(shadow, "SELECT 5", db)["no_table_read"] == 1.0
    empty = score("SELECT 1 WHERE 0", "SELECT id FROM item WHERE id > 99", db)
    assert (empty["acc"], empty["empty_gold"], empty["rows"]) == (1.0, 1.0, 0.0)
    rows = score("SELECT id FROM item", "SELECT 1", db)
    assert (rows["empty_gold"], rows["rows"]) == (0.0, 5.0)
    assert 0 < rows["exec_ms"] < 1000
    assert score("no sql", "SELECT id FROM item WHERE 0", db, fence=False)["empty_gold"] == 1.0
