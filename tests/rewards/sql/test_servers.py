"""reward=sql on PostgreSQL and MariaDB, on servers that the tests start."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time

import pytest
from helpers import ROOT
from sql_helpers import score
from sql_servers import PASSWORD, QUOTED, Proxy, mariadb, postgres  # noqa: F401

from rewards._sql import engines as _sql_engines
from rewards._sql.lex import code, lexer
from rewards.sql import compute_score, row_faults

pytestmark = pytest.mark.real
REFERENCE = "SELECT name, price FROM item"
LOOP = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r"


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def server(request):
    return request.getfixturevalue(request.param)


def outcome(sql, url, reference=REFERENCE, **options):
    return score(sql, reference, url, **{"timeout_s": 5, **options})["outcome"]


def rows_of(server):
    return score("SELECT id FROM item", "SELECT id FROM item", server.url())["rows"]


@pytest.mark.parametrize("sql, wanted", [
    ("SELECT price, name FROM item ORDER BY id DESC", "match"), ("SELECT * FROM item", "mismatch"),
    ("-- so\n(SELECT name, price FROM item);", "match"), ("SELECT 1", "mismatch"), ("-- no", "no_sql"),
    ("SELEC 1", "syntax_error"), ("SELECT FROM WHERE", "syntax_error"), ("SELECT name,", "syntax_error"),
    ("SELECT name FROM nosuch", "schema_error"), ("SELECT nosuch FROM item", "schema_error"),
    ("SELECT nosuch(1)", "schema_error"), ("SELECT id FROM item a, item b", "schema_error"),
    ("SELECT 1; SELECT 2", "multiple_statements"), ("SELECT 1; DROP TABLE item", "multiple_statements"),
    ("EXPLAIN SELECT 1", "not_select"), ("SHOW TABLES", "not_select"),
    ("SELECT a.id FROM item a, item b, item c, item d, item e, item f, item g", "result_too_large"),
    ("SELECT repeat('x', 9000000)", "result_too_large"), ("SELECT '\ud800'", "syntax_error"),
    ("SELECT \0 1", "syntax_error"), ("SELECT 1 WHERE '%s' = '%(x)s'", "mismatch"),
])  # fmt: skip
def test_outcomes(server, sql, wanted):
    assert outcome(sql, server.url()) == wanted


@pytest.mark.parametrize("sql", [
    "DELETE FROM item", "DROP TABLE item", "UPDATE item SET id = id + 9", "INSERT INTO item VALUES (9)",
    "CREATE TABLE t (i INT)", "SELECT * FROM item FOR UPDATE", "SELECT nextval({serial})", "BEGIN", "COMMIT",
    "SET x = 1", "GRANT ALL ON item TO reader", "TRUNCATE TABLE item", "PREPARE x FROM 'SELECT 1'",
])  # fmt: skip
@pytest.mark.parametrize("who", ["reader", "boss"])
def test_nothing_is_written(server, who, sql):
    """Whatever the role may do: the boss is a superuser."""
    sql = sql.format(serial="'serial'" if server.boss == "admin" else "serial")
    user = server.boss if who == "boss" else who
    assert outcome(sql, server.url(user), allow_superuser=True) == "forbidden"
    assert rows_of(server) == 5


FORBIDDEN_POSTGRES = """
WITH x AS (DELETE FROM item RETURNING *) SELECT * FROM x
SELECT * INTO t FROM item
COPY item TO PROGRAM 'touch {trace}'
COPY item TO '{trace}'
COPY item TO STDOUT
DO $$ BEGIN PERFORM 1; END $$
LISTEN x
RESET ALL
SELECT set_config('statement_timeout', '0', false)
SELECT U&"set\\005fconfig"('statement_timeout', '0', false)
SELECT query_to_xml('SELECT set_con' || 'fig(''x.y'', ''0'', false)', true, true, '')
SELECT pg_read_file('/etc/passwd')
SELECT "pg_read_file"('/etc/passwd')
SELECT pg_catalog . pg_ls_dir('/')
SELECT lo_import('/etc/passwd')
SELECT lo_export(1, '{trace}')
SELECT * FROM dblink('dbname=shop', 'DELETE FROM item') AS t(i int)
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
SELECT pg_advisory_lock(1)
SELECT pg_create_physical_replication_slot('x')
SELECT pg_reload_conf()
SELECT rolpassword FROM pg_authid
SELECT * FROM pg_hba_file_rules
SELECT * FROM pg_shadow
SELECT E'a'
'b\\' || ' || set_config('x.y', '0', false) || '
SELECT 'a\\', set_config('x.y', '0', false), '\\'
SELECT $a$ $$ $a$ || set_config('x.y', '0', false) || $$ $$
SELECT E'a' --'\r, set_config('x.y', '0', false) --'
SELECT DISTINCT ON (1) set_config('x.y', '0', false)
SELECT "set_config" /* /* */ */ ('x.y', '0', false)
SELECT * FROM item, pg_ls_dir('/') AS name
SELECT heap_force_kill('item'::regclass, ARRAY['(0,1)']::tid[])
SELECT heap_force_freeze('item'::regclass, ARRAY['(0,1)']::tid[])
SELECT pg_truncate_visibility_map('item')
SELECT gin_clean_pending_list('item_pkey')
SELECT brin_summarize_new_values('item_pkey')"""
FORBIDDEN_MARIADB = """
SELECT * INTO OUTFILE '{trace}' FROM item
SELECT 1 INTO DUMPFILE '{trace}'
SELECT load_file('/etc/passwd')
SELECT get_lock('a', 1)
SELECT `get_lock`('a', 1)
/*!DELETE FROM item WHERE id IN (*/ SELECT 1 /*!)*/
SELECT 1 /*M! INTO OUTFILE '{trace}' */
SELECT /*+ MAX_EXECUTION_TIME(0) */ 1
SELECT 'a\\'', load_file('/etc/passwd'), '\\''
SELECT "a\\"", load_file('/etc/passwd'), "\\""
SELECT 1 --load_file('/etc/passwd')
SELECT `load_file` /* x */ ('/etc/passwd')
HANDLER item OPEN
KILL 1
DO sleep(9)
LOAD DATA INFILE '/etc/passwd' INTO TABLE item"""


def hostile(server, tmp_path, queries):
    trace = tmp_path / "trace"
    os.chmod(tmp_path, 0o777)  # the server's user could write there
    for sql in queries.strip().replace("'a'\n'b", "'a'\r'b").split("\n"):
        for user in ("reader", server.boss):
            found = outcome(sql.format(trace=trace), server.url(user), allow_superuser=True)
            assert (found, trace.exists(), rows_of(server)) == ("forbidden", False, 5), sql


def test_hostile_sql_postgres(postgres, tmp_path):  # noqa: F811
    hostile(postgres, tmp_path, FORBIDDEN_POSTGRES)


def test_hostile_sql_mariadb(mariadb, tmp_path):  # noqa: F811
    hostile(mariadb, tmp_path, FORBIDDEN_MARIADB)


SIGNS = r"""' '' " "" \ \' E' e' $$ $a$ $a$b$a$ -- /* */ /**/ # ` `` , 1 1e 1. U&' u& N' x' b' a E $1 ; ( ) + - * /
@ 'a' 'b\' E'a' é"""
SPACES = ["\n", "\r", "-- ", " ", "\xa0", "\x0b", "\f"]


def columns(sql, rules):
    """As many as the tokens say; None where they say that the server would not read it."""
    depth, count = 0, 1
    for token in code(sql, rules):
        if token.kind == "broken":
            return None
        if token.kind == "symbol":
            depth += (token.text == "(") - (token.text == ")")
            count += token.text == "," and not depth
    return count


def test_the_server_reads_a_text_as_we_do(server):
    """Whatever it accepts has as many columns as we see: no comma stands in other quotes to it."""
    import psycopg
    import pymysql

    chance, accepted, rules = random.Random(0), 0, lexer(server.url().partition(":")[0])
    at_postgres = server.boss == "admin"
    connection = (
        psycopg.connect(server.url(), autocommit=True) if at_postgres else server.connected()
    )
    with connection, connection.cursor() as cursor:
        for _ in range(20_000):
            signs = "".join(chance.choices([*SIGNS.split(), *SPACES], k=chance.randint(1, 9)))
            sql = f"SELECT 1 , {signs} , 2"
            try:
                cursor.execute(sql)
            except (psycopg.Error, pymysql.Error):
                continue
            accepted += 1
            found = columns(sql, rules)
            # Names in Unicode escapes are refused, so they are not read.
            assert found == len(cursor.description) or (found is None and "u&" in sql.lower()), sql
    assert accepted > 300


def test_a_superuser_is_refused_by_default(server):
    url = server.url(server.boss)
    result = score(REFERENCE, REFERENCE, url)
    assert (result["outcome"], result["masked"]) == ("db_missing", 1.0)
    assert outcome(REFERENCE, url, allow_superuser=True) == "match"
    assert outcome(REFERENCE, url) == "db_missing"  # whoever asked before
    (fault,) = row_faults([{"ground_truth": REFERENCE, "db": url}])
    assert "allow_superuser" in fault["message"] and "may only read" in fault["message"]
    assert outcome(REFERENCE, server.url()) == "match"


WORDS = """dblink crosstab pg_created_at pg_statistic pg_authid pg_read_file set_config lo_import query_to_xml
load_file get_lock outfile dumpfile max_execution_time sys_exec mysql copy delete"""


@pytest.mark.parametrize("word", WORDS.split())
def test_a_harmless_word_is_no_reason_to_refuse(server, word):
    url, many = server.url(), "SELECT id FROM item"
    for sql in (
        f"SELECT id FROM item WHERE name <> '{word}(1)' OR name IS NULL",
        f"SELECT id FROM item -- no {word}() needed",
        f"SELECT id /* {word}(1) */ FROM item",
        f"SELECT id AS x_{word} FROM item",
        f"WITH x{word} (i) AS (SELECT id FROM item) SELECT i FROM x{word}",
    ):
        assert outcome(sql, url, many) == "match", sql
    if word in ("outfile", "delete"):  # MariaDB reserves them
        return
    for sql in (
        f"SELECT id AS {word} FROM item",
        f"WITH {word} AS (SELECT id FROM item) SELECT id FROM {word}",
        f"WITH {word} (i) AS (SELECT id FROM item) SELECT i FROM {word}",
        f"SELECT {word}.id FROM item AS {word}",
    ):
        assert outcome(sql, url, many) == "match", sql


def test_harmless_signs_and_comments(postgres, mariadb):  # noqa: F811
    assert outcome("SELECT '/*! x'", mariadb.url(), "SELECT CONCAT('/*', '! x')") == "match"
    assert outcome("SELECT 1 -- /*! x */", mariadb.url(), "SELECT 1") == "match"
    assert outcome("/* a /* b */ c */ SELECT 1", postgres.url(), "SELECT 1") == "match"
    assert outcome('SELECT $$U&"x"$$', postgres.url(), "SELECT 'U&\"x\"'") == "match"
    for harmless in ("clock_timestamp()", "random()", "pg_table_size('item')", "gen_random_uuid()"):
        assert outcome(f"SELECT {harmless} IS NULL", postgres.url(), "SELECT false") == "match"


def test_comments_that_only_the_server_sees_through(postgres, tmp_path):  # noqa: F811
    os.chmod(tmp_path, 0o777)
    for sql in (
        "--\rCOPY (\nSELECT 1) TO PROGRAM 'touch {}'",
        "/* /* */ SELECT */ COPY (SELECT 1) TO PROGRAM 'touch {}'",
    ):
        sql = sql.format(tmp_path / "trace")
        found = outcome(sql, postgres.url("admin"), allow_superuser=True)
        assert found in ("syntax_error", "forbidden")
    assert not list(tmp_path.iterdir())


def test_the_read_only_transaction_does_not_rely_on_the_text(postgres, mariadb, monkeypatch):  # noqa: F811
    """Without any look at the text the server refuses to write, and forgets what was set."""
    monkeypatch.setattr(_sql_engines.Engine, "check", lambda self, sql: None)
    clock = _sql_engines.Clock()
    clock.deadline, clock.timeout_s = time.monotonic() + 60, 5.0
    clock.connecting = lambda seconds: contextlib.nullcontext()
    for server, user in ((postgres, "admin"), (mariadb, "root")):
        engine = _sql_engines.connect(server.url(user), 1 << 28, clock)
        for sql in ("DELETE FROM item", "DROP TABLE item", "CREATE TABLE x (i INT)"):
            with pytest.raises(_sql_engines.Fault) as raised:
                engine.query(sql, 9, 999, True)
            assert raised.value.outcome == "forbidden"
        engine.close()
        assert rows_of(server) == 5
    engine = _sql_engines.connect(postgres.url(), 1 << 28, clock)
    for sql, name in (("SELECT set_config('statement_timeout', '0', false)", "statement_timeout"),
                      ("SET SESSION default_transaction_read_only = off", "transaction_read_only")):  # fmt: skip
        try:
            engine.query(sql, 9, 999, True)
        except _sql_engines.Fault as fault:
            assert fault.outcome == "not_select"
        (row,) = engine.query(f"SELECT current_setting('{name}')", 9, 999, True).raw
        assert row == ({"statement_timeout": "5s"}.get(name, "on"),)
    engine.close()


def test_the_time_limit(server):
    sleep = "SELECT pg_sleep(60)" if server.boss == "admin" else "SELECT sleep(60)"
    many = ", ".join(f"item i{number}" for number in range(25))
    start = time.monotonic()
    for sql in (sleep, f"SELECT count(*) FROM {many}"):
        assert outcome(sql, server.url(), timeout_s=0.5, grace_s=20) == "timeout", sql
    assert time.monotonic() - start < 15
    assert outcome(REFERENCE, server.url(), timeout_s=0.5, grace_s=20) == "match"


def test_mariadb_functions_that_say_nothing_when_they_are_cut_short(mariadb):  # noqa: F811
    sql = "SELECT benchmark(1000000000000, sha2('a', 512))"
    assert outcome(sql, mariadb.url(), timeout_s=0.5, grace_s=20) == "timeout"


def test_the_session_is_as_before(mariadb):  # noqa: F811
    url = mariadb.url()
    assert outcome("SELECT @x := 5", url, "SELECT 5") == "match"
    for _ in range(3):  # as many workers as there are, and one more
        assert outcome(f"SELECT @x -- {_}", url, "SELECT NULL") == "match"
    assert outcome("SELECT 1 INTO @x", url) == "not_select"


def test_the_modes(server):
    url = server.url()
    assert outcome(f"{REFERENCE} ORDER BY id DESC", url, f"{REFERENCE} ORDER BY id") == "mismatch"
    twice = "SELECT name FROM item WHERE name = 'gear'"
    once = twice.replace("SELECT", "SELECT DISTINCT")
    options = {"spider": {"keep_distinct": False}, "keep": {}, "bird": {"mode": "bird"},
               "strict": {"mode": "strict"}}  # fmt: skip
    found = {name: outcome(once, url, twice, **more) for name, more in options.items()}
    assert found == {"spider": "match", "keep": "mismatch", "bird": "match", "strict": "mismatch"}
    third = "SELECT sum(price) / 3 FROM item"
    assert outcome(third, url, third.replace("3", "3e0"), mode="strict") == "match"


@pytest.mark.parametrize("left, right", [
    ("1.50", "1.5e0"), ("true", "1"), ("2.0", "2"), ("NULL", "NULL"), ("DATE '2020-01-02'", "'2020-01-02'"),
    ("12345678901234567890", "12345678901234567890.0"), ("CAST(price AS CHAR(9)) FROM item", None),
    ("TIMESTAMP '2020-01-02 10:00:00'", "'2020-01-02 10:00:00'"), ("avg(stock) FROM item", "5e0"),
])  # fmt: skip
def test_values_that_are_equal(server, left, right):
    assert outcome(f"SELECT {left}", server.url(), f"SELECT {right or left}") == "match"


@pytest.mark.parametrize("left, right", [
    ("ARRAY[1.50, 2.0]", "ARRAY[1.5, 2.00]"), ("ARRAY[1.50, NULL, 'NaN']", "ARRAY[1.5, NULL, 'NaN'::float8]"),
    ("ARRAY[[1.0, 2.5], [3, 4]]", "'{{1,2.5},{3,4}}'::float8[]"), ("numrange(1.50, 2.0)", "numrange(1.5, 2)"),
    ("'{\"a 1.50\": [1.50, \"2.0\"]}'::jsonb", "'{\"a 1.50\": [1.5, \"2.0\"]}'::jsonb"),
    ("'ab'::char(5)", "'ab'"), ("'ab'::char(5)", "'ab'::char(9)"), ("1::numeric / 3", "1::float8 / 3"),
    ("0.1::numeric", "0.1::float8"), ("12345678901234567890123456.1", "12345678901234567890123456.10"),
    ("'NaN'::numeric", "'NaN'::float8"), ("ARRAY[0.12345678901234567890]", "ARRAY[0.1234567890123456789]"),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["spider", "bird", "strict"])
def test_values_that_are_equal_in_postgres(postgres, left, right, mode):  # noqa: F811
    assert outcome(f"SELECT {left}", postgres.url(), f"SELECT {right}", mode=mode) == "match"


@pytest.mark.parametrize("left, right", [
    ("0.12345678901234567891", "0.12345678901234567890"), ("12345678901234567890.5", "12345678901234567890.25"),
])  # fmt: skip
def test_decimals_beyond_a_float(server, left, right):
    url = server.url()
    for mode in ("spider", "bird"):
        assert outcome(f"SELECT {left}", url, f"SELECT {right}", mode=mode) == "mismatch"
        assert outcome(f"SELECT {left}, 1", url, f"SELECT {left}0, 1", mode=mode) == "match"
    assert outcome(f"SELECT {left}", url, f"SELECT {right}", mode="strict") == "match"
    assert outcome(f"SELECT {left}", url, f"SELECT '{left}'") == "mismatch"


def test_nan_in_any_order(postgres):  # noqa: F811
    rows = "SELECT * FROM (VALUES ({}), ({})) q"
    for other in ("1.5::float8", "'NaN'::float8", "NULL"):
        left = rows.format(other, "'NaN'::float8")
        right = rows.format("'NaN'::float8", other)
        for mode in ("strict", "spider", "bird"):
            assert outcome(left, postgres.url(), right, mode=mode) == "match"
    assert outcome(left, postgres.url(), rows.format("1.5", "NULL"), mode="strict") == "mismatch"


@pytest.mark.parametrize("left, right", [("'1'", "1"), ("NULL", "0"), ("''", "NULL")])
def test_values_that_are_not(server, left, right):
    assert outcome(f"SELECT {left}", server.url(), f"SELECT {right}") == "mismatch"


def test_bytes(postgres, mariadb):  # noqa: F811
    assert outcome("SELECT '\\x6162'::bytea", postgres.url(), "SELECT 'ab'::bytea") == "match"
    assert outcome("SELECT '\\x6162'::bytea", postgres.url(), "SELECT 'ab'") == "mismatch"
    assert outcome("SELECT x'6162'", mariadb.url(), "SELECT CAST('ab' AS BINARY)") == "match"
    assert outcome("SELECT b FROM bits", mariadb.url(), "SELECT 5") == "match"


def test_a_password_and_what_is_said_without_it(server, monkeypatch):
    name = "PGPASSWORD" if server.boss == "admin" else "MYSQL_PWD"
    monkeypatch.delenv(name, raising=False)
    url = server.url("locked")
    good = url.replace("locked@", f"locked:{QUOTED}@")
    wrong = url.replace("locked@", "locked:hush-hush@")
    check = {"ground_truth": REFERENCE}
    assert outcome(REFERENCE, good) == "match"
    faults = row_faults(
        [check | {"db": db} for db in (good, wrong, url, good.replace("shop", "no"))]
    )
    assert [(fault["index"], fault["outcome"]) for fault in faults] == [
        (number, "db_missing") for number in (1, 2, 3)
    ]
    said = str(faults)
    assert "locked:***@" in said and not any(s in said for s in ("hush", PASSWORD, QUOTED, "word@"))
    monkeypatch.setenv(name, PASSWORD)  # a new pool, whose processes know it
    assert outcome(REFERENCE, url, workers=1, memory_mib=1023) == "match"


def test_a_lost_connection_is_made_again(server):
    url = server.url()
    assert outcome(REFERENCE, url, workers=1) == "match"
    server.stop()
    assert outcome(REFERENCE + " -- down", url, workers=1) == "db_missing"
    server.run()
    time.sleep(_sql_engines.RETRY_S)
    assert outcome(REFERENCE + " -- down", url, workers=1) == "match"  # nor was that remembered
    server.stop()
    server.run()
    assert outcome(REFERENCE + " -- up", url, workers=1) == "match"


def test_a_network_that_hangs(server):
    proxy = Proxy(server.port)
    url = server.url().replace(str(server.port), str(proxy.port))
    options = {"workers": 1, "memory_mib": 1022, "timeout_s": 1, "grace_s": 0.5}
    assert outcome(REFERENCE, url, **options) == "match"
    proxy.flowing.clear()
    start = time.monotonic()
    result = score(REFERENCE + " -- hangs", REFERENCE, url, **options)
    assert (result["outcome"], result["masked"]) == ("db_missing", 1.0)
    assert time.monotonic() - start < 40
    start = time.monotonic()
    for number in range(20):  # nobody waits for a server again and again
        assert outcome(f"{REFERENCE} -- {number}", url, **options) == "db_missing"
    assert time.monotonic() - start < 40
    proxy.flowing.set()
    time.sleep(_sql_engines.RETRY_S)
    assert outcome(REFERENCE + " -- hangs", url, **options) == "match"
    proxy.close()


def test_many_answers_at_once(server):
    async def ask():
        calls = [f"SELECT {number % 7} -- {number % 50}" for number in range(400)]
        return await asyncio.gather(*(
            compute_score("", f"```sql\n{sql}\n```", "SELECT count(*) FROM item", {"db": server.url()})
            for sql in calls
        ))  # fmt: skip

    results = asyncio.run(ask())
    assert sum(result["outcome"] == "match" for result in results) == sum(
        n % 7 == 5 for n in range(400)
    )
    assert 0 < sum(result["cache_hit"] for result in results) < 400


def test_from_a_file_of_questions_to_scores(postgres, tmp_path):  # noqa: F811
    lines = ["question,sql,db"]
    lines += [f"How many have stock {n}?,SELECT count(*) FROM item WHERE stock = {n},{postgres.url()}"
              for n in range(40)]  # fmt: skip
    (tmp_path / "questions.csv").write_text("\n".join(lines))
    made = subprocess.run(
        [sys.executable, "-m", "data_prep", "jsonl", tmp_path / "questions.csv", "--prompt", "question",
         "--answer", "sql", "--db", "db", "--val-share", "0.3", "--out", tmp_path / "data"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    command = [sys.executable, "-m", "rewards", "sql", "--file", tmp_path / "data/train.parquet"]
    done = subprocess.run([*command, "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "0 with faults" in done.stdout, done.stderr
