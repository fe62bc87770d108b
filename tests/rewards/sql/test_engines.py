"""reward=sql on databases by URL: what needs no server. The engines' own tests are beside this."""

import asyncio
import math
import os
import subprocess
import sys
import time
import uuid
from datetime import date, datetime
from decimal import Decimal
from importlib.util import find_spec

import pytest
from helpers import ROOT, cpu_seconds
from hypothesis import given
from hypothesis import strategies as st
from sql_helpers import score
from sql_servers import free_port

from preflight.checks import rows as rows_check
from rewards._sql import handle as _sql_process
from rewards._sql import url as _sql_url
from rewards._sql.engines import Engine, called, number, plain
from rewards._sql.guard import Clock, Fault
from rewards._sql.lex import code, lexer
from rewards._sql.text import has_second_statement, without_distinct
from rewards.sql import bars, compute_score, reference_answer, row_faults

SECRET = "postgresql://me:s3cr%3At%2F@host:5432/shop?sslpassword=hush&x=a@b"


def test_a_password_is_never_shown():
    shown = _sql_url.shown(SECRET)
    assert shown.startswith("postgresql://me:***@") and "hush" not in shown and "s3cr" not in shown
    assert _sql_url.shown("mysql://me:a/b@c@host/db") == "mysql://me:***@host/db"
    assert _sql_url.shown("/a/b:c@d.sqlite") == "/a/b:c@d.sqlite"
    for url in ("postgresql://me@host:5432/db", "postgresql:///db?host=/tmp", "duckdb:///a/b"):
        assert _sql_url.shown(url) == url
    said = _sql_url.hidden("bad s3cr:t/ or\n s3cr%3At%2F, hush", SECRET)
    assert not any(secret in said for secret in ("s3cr", "hush")) and "\n" not in said


def unreachable(user="me:s3cr:t@word"):
    return f"{user}@127.0.0.1:{free_port()}/shop"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "mysql", "mariadb"])
def test_nobody_there(scheme):
    """The sample is masked, and the password in no text."""
    url = f"{scheme}://{unreachable()}"
    result = score("SELECT 1", "SELECT 1", url)
    assert (result["outcome"], result["masked"]) == ("db_missing", 1.0)
    assert math.isnan(result["score"]) and math.isnan(result["acc"])
    (fault,) = row_faults([{"ground_truth": "SELECT 1", "db": url}])
    assert fault["outcome"] == "db_missing" and "word" not in fault["message"]
    assert f"{scheme}://me:***@127.0.0.1" in fault["message"]


def test_urls_that_name_nothing():
    said = {}
    for url in (
        "oracle://host/db",
        "duckdb://x.duckdb",
        "duckdb:///no/such.duckdb",
        "mysql://host",
        "mysql://host:port/db",
        "postgresql://host:port/db",
        "mysql://host/db?nonsense=1",
    ):
        (fault,) = row_faults([{"ground_truth": "SELECT 1", "db": url}])
        assert fault["outcome"] == "db_missing"
        said[url] = fault["message"]
    assert "oracle://" in said["oracle://host/db"] and "postgresql" in said["oracle://host/db"]
    assert "absolute" in said["duckdb://x.duckdb"] and "no database" in said["mysql://host"]
    assert "/no/such.duckdb" in said["duckdb:///no/such.duckdb"]


@pytest.mark.parametrize("scheme, package", [("mysql", "pymysql"), ("duckdb", "duckdb"),
                                             ("postgresql", "'psycopg[binary]'")])  # fmt: skip
def test_a_driver_that_is_not_installed(monkeypatch, scheme, package):
    _sql_url.driver_of.cache_clear()
    hidden = _sql_url.DRIVERS[scheme]
    monkeypatch.setattr(_sql_url, "find_spec", lambda n: None if n == hidden else find_spec(n))
    wanted = f"{scheme}:// needs {hidden}, which is not installed: pip install {package}"
    with pytest.raises(ValueError) as raised:
        score("SELECT 1", "SELECT 1", f"{scheme}:///x")
    assert str(raised.value) == wanted
    with pytest.raises(ValueError, match="not installed"):
        row_faults([{"ground_truth": "SELECT 1", "db": f"{scheme}:///x"}])


def test_the_command_line_says_it_in_one_line(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"ground_truth": "SELECT 1", "db": "duckdb:///x", "response": ""}\n')
    hide = (
        "import sys, runpy; from rewards._sql import url; url.find_spec = lambda name: None;"
        f"sys.argv = ['rewards', 'sql', '--file', {str(rows)!r}, '--check'];"
        "runpy.run_module('rewards', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: duckdb:// needs duckdb")
    assert "Traceback" not in done.stderr


STUCK = """
import time, rewards._sql.engines as e
class Stuck(e.Engine):
    def connect(self):
        time.sleep(60)
def connect(*arguments):
    stuck = Stuck(*arguments)
    stuck.open()
    return stuck
e.CONNECT_MOST_S, e.connect = 0.3, connect
"""


def test_a_connection_that_hangs_is_no_matter_of_the_answer(monkeypatch, tmp_path):
    (tmp_path / "x").write_text("never read")
    *python, boot = _sql_process.COMMAND
    command = [*python, f"import sys; sys.path.append({str(ROOT)!r}); {STUCK}\n{boot}"]
    monkeypatch.setattr(_sql_process, "COMMAND", tuple(command))
    start = time.monotonic()
    result = score("SELECT 1", "SELECT 1", f"duckdb://{tmp_path}/x", memory_mib=900)
    assert result["outcome"] == "db_missing" and time.monotonic() - start < 30


def check(sql, engine="postgresql"):
    try:
        Engine(f"{engine}:///x", 0, Clock()).check(sql)
    except Fault as fault:
        return fault.outcome
    return "query"


@pytest.mark.parametrize("sql, outcome", [
    ("SELECT 1", "query"), ("\n ;(( select 1))", "query"), ("WITH a AS (SELECT 1) TABLE a", "query"),
    ("-- hi\n/* there /* you */ */ SELECT 1", "query"), ("-- hi\r\nvalues (1)", "query"),
    ("", "no_sql"), (" ;; -- x", "no_sql"), ("/* x */", "no_sql"),
    ("DELETE FROM t", "forbidden"), ("set x = 1", "forbidden"), ("Copy t TO 'x'", "forbidden"),
    ("EXPLAIN SELECT 1", "not_select"), ("show tables", "not_select"), ("SELEC 1", "syntax_error"),
    ("/* SELECT 1", "syntax_error"), ("*/ SELECT 1", "syntax_error"), ("# x\nSELECT 1", "syntax_error"),
    ("\"SELECT\" 1", "syntax_error"), ("\xa0SELECT 1", "syntax_error"),
])  # fmt: skip
def test_the_first_word(sql, outcome):
    assert check(sql) == outcome


@pytest.mark.parametrize("sql, postgres, mysql", [
    ("/* /* */ SELECT */ COPY t TO 'x'", "forbidden", "query"),
    ("-- \rSELECT 1\nKILL 1", "query", "forbidden"), ("--\rKILL 1\nSELECT 1", "forbidden", "query"),
    ("# so\nSELECT 1", "syntax_error", "query"), ("--SELECT 1\nSELECT 1", "query", "syntax_error"),
])  # fmt: skip
def test_where_engines_differ_in_what_is_a_comment(sql, postgres, mysql):
    assert (check(sql), check(sql, "mysql")) == (postgres, mysql)


@given(st.text(alphabet="-/*#;(\r\n aSELCT'\"", max_size=200))
def test_any_text_has_a_first_word_or_none(sql):
    assert check(sql) in ("query", "no_sql", "syntax_error", "forbidden")


@pytest.mark.parametrize("part", ["/*", "--", "-- \r", "#\n", "(", "/* */", "/", "/**/ /*"])
def test_the_first_word_in_linear_time(part):
    def seconds(length):
        return cpu_seconds(lambda: check(part * (length // len(part))))

    assert seconds(200_000) < 30 * max(seconds(20_000), 1e-3)


def test_distinct_goes_but_not_distinct_on():
    cases = {
        "SELECT DISTINCT a FROM t": "SELECT  a FROM t",
        "select count(distinct a) from t": "select count( a) from t",
        "SELECT DISTINCT ON (a) a FROM t": "SELECT DISTINCT ON (a) a FROM t",
        "SELECT distinct on_hand FROM t": "SELECT  on_hand FROM t",
        "SELECT 'distinct' IS DISTINCT FROM \"distinct\"": None,
        "SELECT a FROM t WHERE a > = 1": None,  # the repairs are for SQLite
    }
    for sql, wanted in cases.items():
        assert without_distinct(sql, False) == (wanted or sql)
        assert without_distinct(sql, True) == sql


@pytest.mark.parametrize("engine, sql, wanted", [
    ("postgresql", "SELECT $$a distinct b$$, DISTINCT", "SELECT $$a distinct b$$, "),
    ("postgresql", "SELECT $x$ $$ distinct $x$", None), ("duckdb", "SELECT $$a distinct b$$", None),
    ("postgresql", "SELECT E'it\\'s distinct'", None), ("postgresql", "SELECT 'a\\' DISTINCT", "SELECT 'a\\' "),
    ("postgresql", "SELECT /* /* */ distinct */ 1", None), ("postgresql", "SELECT a[1], distinct b[1]",
                                                           "SELECT a[1],  b[1]"),
    ("mysql", "SELECT 'it\\'s distinct'", None), ("mysql", 'SELECT "it\\"s distinct"', None),
    ("mysql", "SELECT 1 # distinct", None), ("mysql", "SELECT `a``distinct`", None),
    ("mysql", "SELECT 1 --distinct", "SELECT 1 --"),
])  # fmt: skip
def test_distinct_in_the_quotes_of_each_engine(engine, sql, wanted):
    assert without_distinct(sql, False, engine) == (wanted or sql)


@pytest.mark.parametrize("sql, names", [
    ("SELECT f(1)", {"f"}), ("SELECT \"F\" -- x\n (1)", {"f"}), ("SELECT s . f(1)", {"f"}),
    ("SELECT 'f(1)', 1 AS f -- f(1)", set()), ("SELECT * FROM t AS f (a)", set()),
    ("WITH f AS (SELECT 1) SELECT * FROM f", set()), ("WITH f(a) AS (SELECT 1) SELECT a FROM f", set()),
    ("WITH a AS (SELECT 1), f(a) AS MATERIALIZED (WITH x AS (SELECT 1) SELECT 1) SELECT 1", set()),
    ("SELECT * FROM t, f('x') AS (a int)", {"f"}), ("SELECT 1 f(a)", {"f"}),
    ("WITH x AS (SELECT f(1)) SELECT 1", {"f"}),
    ("SELECT * FROM f('x') AS (a int)", {"f"}), ("SELECT f((SELECT 1))", {"f"}),
])  # fmt: skip
def test_what_is_called(sql, names):
    assert called(code(sql, lexer("postgresql"))) & {"f"} == names


def test_a_second_statement():
    for sql in ("SELECT 1; SELECT 2", "SELECT 1;\nDROP TABLE t", "selec 1;x"):
        assert has_second_statement(sql)
    for sql in ("SELECT 1;", "SELECT 1 ; \n", "SELECT ';x'", "SELECT 1 -- ;x", 'SELECT ";x"'):
        assert not has_second_statement(sql)


def test_values():
    now, some = datetime(2020, 1, 2, 3), uuid.uuid4()
    for value, wanted in {
        True: 1, Decimal("1.50"): 1.5, Decimal("2.00"): 2, Decimal("-3"): -3, None: None, b"x": b"x",
        Decimal(10**30): 10**30, date(2020, 1, 2): "2020-01-02", now: "2020-01-02 03:00:00",
        some: str(some), (1, Decimal("1.0")): "[1, 1]", (1.0, float("1e20")): "[1, 100000000000000000000]",
        Decimal("0.1"): 0.1, Decimal("1E-7"): 1e-7, Decimal("0.12345678901234567890"): ("0.1234567890123456789",),
        Decimal("12345678901234567890123456.10"): ("12345678901234567890123456.1",),
    }.items():  # fmt: skip
        assert (plain(value), type(plain(value))) == (wanted, type(wanted)), value
    assert plain({"a": [Decimal("1.5"), None]}) == plain({"a": [1.5, None]})
    assert plain(bytearray(b"x")) == b"x" and math.isnan(number("NaN"))
    assert [number(text) for text in ("-0.0", "1E+3", ".5", "-7")] == [0, 1000.0, 0.5, -7]
    assert number("9" * 5000) == "9" * 5000 and number("9" * 300) == int("9" * 300)


def test_bars_and_the_reference_answer():
    assert bars() == {"range": (0.0, 1.0), "reference": 1.0, "empty": 0.0}
    assert bars(shaping="sql_r1") == {"range": (-1.0, 6.0), "reference": 6.0, "empty": -1.0}
    assert (
        reference_answer(["", "SELECT 1"]) == "```sql\nSELECT 1\n```"
        and reference_answer(None) is None
    )


def test_a_reference_answer_is_a_match(db):
    result = asyncio.run(compute_score("", reference_answer("SELECT 1"), "SELECT 1", {"db": db}))
    assert result["score"] == bars()["reference"] and os.path.exists(db)


def test_preflight_says_it_in_one_line(composer, monkeypatch, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"reward_model": {"ground_truth": "SELECT 1"}, "extra_info": {"db": "duckdb:///no/such"}}
    for name in ("train", "val"):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
    config = composer("dataset=jsonl", "reward=sql", f"lab.dataset.dir={tmp_path}")
    assert "no database file: duckdb:///no/such" in rows_check.check_rows(config)
    _sql_url.driver_of.cache_clear()
    monkeypatch.setattr(_sql_url, "find_spec", lambda name: None)
    said = rows_check.check_rows(config)
    assert "needs duckdb, which is not installed" in said and "\n" not in said
