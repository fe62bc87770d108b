"""reward=sql from outside: modes, outcome classes, shaping, several golds and databases, faults."""

import asyncio
import json
import math
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewards._sql_shaping import DATA_FAULTS, OUTCOMES, SHAPINGS, score_of
from rewards.sql import check_rows, compute_score

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

COUNT_TO = (
    "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r LIMIT {}) SELECT i FROM r"
)


def make_database(path, script=SCHEMA):
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return str(path)


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return make_database(tmp_path_factory.mktemp("sql") / "shop.sqlite")


def score(sql, gold, db, fence=True, **options):
    text = f"<think>hm</think>\n```sql\n{sql}\n```" if fence else sql
    info = db if isinstance(db, dict) else {"db": db}
    result = asyncio.run(compute_score("test", text, gold, info, **options))
    assert result.keys() == KEYS
    assert all(type(value) is float for key, value in result.items() if key != "outcome")
    return result


def outcome(*arguments, **options):
    return score(*arguments, **options)["outcome"]


MODES = {
    "spider": {},
    "keep": {"keep_distinct": True},
    "bird": {"mode": "bird"},
    "strict": {"mode": "strict"},
}


@pytest.mark.parametrize(
    ("sql", "gold", "matching"),
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
def test_modes(db, sql, gold, matching):
    found = {name for name, options in MODES.items() if score(sql, gold, db, **options)["acc"]}
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
    # Twice the gold's are always allowed.
    half = rows.replace("200", "100")
    assert outcome(rows, half, db, max_rows=10, max_bytes=10) == "mismatch"
    assert outcome(rows.replace("200", "201"), half, db, max_rows=10) == "result_too_large"
    wide = "SELECT " + ", ".join(["printf('%.*c', 999999, 'x')"] * 100)
    assert outcome(wide, "SELECT 1", db, memory_mib=128) == "memory"
    assert outcome(wide, "SELECT 1", db) == "result_too_large"


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


def test_several_golds(db):
    golds = ["SELECT id FROM item", "SELECT name FROM item", "SELECT id, name FROM item"]
    assert outcome("SELECT name, id FROM item", golds, db) == "match"
    assert outcome("SELECT price FROM item", golds, db) == "mismatch"
    # A gold that does not run is left to check_rows while another one does.
    assert outcome("SELECT id FROM item", ["SELECT nosuch FROM item", golds[0]], db) == "match"


def test_several_databases(db, tmp_path):
    other = make_database(tmp_path / "other.sqlite", SCHEMA + "DELETE FROM item WHERE id > 3;")
    gold = "SELECT count(*) FROM item"
    assert outcome("SELECT 5", gold, db) == "match"
    for info in (
        {"db": [db, other]},
        {"db": db, "extra_dbs": [other]},
        {"db": other, "extra_dbs": db},
    ):
        assert outcome("SELECT 5", gold, info) == "mismatch"
        assert outcome("SELECT count(id) FROM item", gold, info) == "match"
    # The same gold has to match on every database, not one here and another there.
    assert (
        outcome("SELECT 5", [gold, "SELECT count(*) + 2 FROM item"], {"db": [db, other]})
        == "mismatch"
    )
    assert outcome("SELECT 1", gold, {"db": [db, str(tmp_path / "none")]}) == "db_missing"


def test_a_gold_of_many_rows(db):
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
    "gold", ["SELECT nosuch FROM item", "DROP TABLE item", "", None, [], 5, {}]
)
def test_gold_faults(db, gold):
    result = score("SELECT 1", gold, db)
    assert (result["outcome"], result["masked"], result["executed"]) == ("gold_error", 1.0, 0.0)
    assert math.isnan(result["score"]) and math.isnan(result["acc"])
    assert score("no sql at all", gold, db, fence=False)["outcome"] == "gold_error"


def test_a_hanging_gold_is_a_fault_of_the_data(db):
    gold = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"
    assert outcome("SELECT 1", gold, db, gold_timeout_s=0.2) == "gold_error"


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


def test_formats(db):
    good, gold = "```sql\nSELECT 5\n```", "SELECT count(*) FROM item"
    two = f"<think>x</think>{good}{good}"
    assert outcome(two, gold, db, fence=False) == "match"
    assert outcome(two, gold, db, fence=False, strict_format=True) == "format"
    assert outcome("</think></think>" + good, gold, db, fence=False, strict_format=True) == "format"
    assert outcome("x</think>" + good, gold, db, fence=False, strict_format=True) == "match"
    assert outcome("SELECT 5", gold, db, fence=False) == "no_sql"
    assert outcome("SELECT 5", gold, db, fence=False, bare_select=True) == "match"
    assert outcome(None, gold, db, fence=False) == "no_sql"


@pytest.mark.parametrize("shaping", SHAPINGS)
def test_a_non_match_scores_below_every_match(shaping):
    shares = [0.0, 0.3, 0.5, 0.99, 1.0]
    best = max(
        score_of(shaping, outcome, share)
        for outcome in OUTCOMES
        for share in shares
        if outcome != "match" and outcome not in DATA_FAULTS
    )
    assert all(score_of(shaping, "match", share) > best for share in shares)
    assert all(math.isnan(score_of(shaping, outcome)) for outcome in DATA_FAULTS)


@pytest.mark.parametrize(
    ("shaping", "match", "wrong", "broken", "no_sql"),
    [
        ("arctic", 1.0, 0.1, 0.0, 0.0),
        ("binary", 1.0, 0.0, 0.0, 0.0),
        ("skyrl", 1.0, 0.0, 0.0, -1.0),
        ("sql_r1", 6.0, 0.0, -1.0, -1.0),
        ("soft_f1", 1.0, 0.0, 0.0, 0.0),
    ],
)
def test_shaping(db, shaping, match, wrong, broken, no_sql):
    gold = "SELECT count(*) FROM item"
    options = {"shaping": shaping}
    assert score("SELECT 5", gold, db, **options)["score"] == match
    assert score("SELECT 6", gold, db, **options)["score"] == wrong
    assert score("SELECT nosuch", gold, db, **options)["score"] == broken
    assert score("DROP TABLE item", gold, db, **options)["score"] == broken
    assert score("nothing", gold, db, fence=False, **options)["score"] == no_sql


def test_soft_f1_pays_for_partial_answers(db):
    gold = "SELECT id, name, price FROM item"

    def soft(sql, gold=gold, **options):
        return score(sql, gold, db, shaping="soft_f1", **options)["score"]

    assert 0 < soft("SELECT id, name, 'x' FROM item") <= 0.5
    assert (
        soft("SELECT id, name FROM item ORDER BY id DESC", "SELECT id, name FROM item ORDER BY id")
        == 0.5
    )
    assert soft("SELECT id, name, price FROM item WHERE id < 2") < 0.5
    assert (
        soft("SELECT id, name, price FROM item WHERE id < 4") > soft("SELECT 'a', 'b', 'c'") == 0.0
    )
    assert soft("SELECT id FROM item", ["SELECT 'x', 'y'", gold], mode="bird") > 0


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "spyder"}, {"mode": None}, {"mode": ["bird"]}, {"shaping": "dense"},
        {"shaping": ["arctic"]},
        {"timeout_s": "2"}, {"timeout_s": 0}, {"timeout_s": float("nan")}, {"timeout_s": True},
        {"grace_s": -1}, {"workers": 0}, {"workers": 1.5}, {"keep_distinct": 1},
        {"keep_distinct": "false"}, {"max_rows": 0}, {"memory_mib": 1}, {"max_bytes": [8]},
        {"bare_select": None}, {"shapping": "arctic"}, {"time_out_s": 2},
    ],
)  # fmt: skip
def test_bad_options_are_named(db, options):
    with pytest.raises(ValueError, match=next(iter(options)).replace("shapping", "shaping")[:4]):
        score("SELECT 1", "SELECT 1", db, **options)


def test_arguments_of_verl_are_left_alone(db):
    options = {"reward_router_address": None, "reward_model_tokenizer": object()}
    assert score("SELECT 1", "SELECT 1", db, **options)["acc"] == 1.0


SQL_PIECES = st.sampled_from(
    ["SELECT ", "id", "*", " FROM item", " WHERE ", "(", ")", "'", '"', "--", "/*", ";", "1", ",",
     " UNION ", "DROP TABLE item", "```", "```sql\n", "\n```", "<answer>", "</answer>", "</think>"]
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(st.text(), st.lists(SQL_PIECES, max_size=12).map("".join)),
    st.booleans(),
    st.sampled_from(list(MODES)),
    st.sampled_from(list(SHAPINGS)),
)
def test_any_text_gets_a_finite_score_in_range(db, text, fence, mode, shaping):
    options = {**MODES[mode], "shaping": shaping}
    result = score(text, "SELECT id, name FROM item", db, fence=fence, **options)
    low, high = {"sql_r1": (-1, 6), "skyrl": (-1, 1)}.get(shaping, (0, 1))
    assert low <= result["score"] <= high
    assert result["outcome"] in OUTCOMES
    json.dumps(result, allow_nan=False)


def test_check_rows(db, tmp_path):
    def row(gold, path=db, **more):
        return {"reward_model": {"ground_truth": gold}, "extra_info": {"db": path}, **more}

    slow = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"
    rows = [
        row("SELECT 1"), row("SELECT nosuch"), row("SELECT 1", str(tmp_path / "none")),
        row("SELECT nosuch"), row(["SELECT 1", "SELECT nosuch2"]), row(slow),
        {"extra_info": {"db": db}}, row("SELECT 2"),
    ]  # fmt: skip
    faults = check_rows(iter(rows), gold_timeout_s=0.2)
    assert [(fault["index"], fault["outcome"]) for fault in faults] == [
        (1, "gold_error"), (2, "db_missing"), (3, "gold_error"), (4, "gold_error"),
        (5, "gold_error"), (6, "gold_error"),
    ]  # fmt: skip
    assert "nosuch" in faults[0]["message"] and "none" in faults[1]["message"]
    assert "timeout" in faults[4]["message"]
    assert check_rows([rows[0], rows[-1]]) == []

    async def inside_a_loop():
        return check_rows(rows[:2])

    assert [fault["index"] for fault in asyncio.run(inside_a_loop())] == [1]
    with pytest.raises(ValueError, match="mode"):
        check_rows(rows, mode="spyder")
    with pytest.raises(ValueError, match="gold_timeout_s"):
        check_rows(rows, gold_timeout=5)
