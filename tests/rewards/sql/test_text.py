"""Finding SQL in a response, and SQL as text: what counts, and linear time on any input."""

import pytest
from helpers import cpu_seconds
from hypothesis import given
from hypothesis import strategies as st

from rewards._sql.text import (
    extract,
    first_word,
    has_top_level_order_by,
    lower_case,
    spider_form,
)


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("```sql\nSELECT 1\n```", "SELECT 1"),
        ("```sqlite\nSELECT 1\n```", "SELECT 1"),
        ("```SQL\nSELECT 1\n```", "SELECT 1"),
        ("``` sql SELECT 1```", "SELECT 1"),
        ("````sql\nSELECT 1\n````", "SELECT 1"),
        ("```sqlx\nSELECT 1\n```", None),
        ("```\nSELECT 1\n```", None),
        ("```python\n1\n```\n```sql\nSELECT 1\n```", "SELECT 1"),
        ("a ``` b ```sql\nSELECT 1\n```", "SELECT 1"),
        ("```sql\nSELECT 1\n```\n```sql\nSELECT 2\n```", "SELECT 2"),
        ("```sql\nSELECT 1\n``````sql\nSELECT 2\n```", "SELECT 2"),
        ("```sql\nSELECT 1\n```\n```sql\nSELECT 2", "SELECT 1"),
        ("```sql\nSELECT 1\n```\n```sql\n```", None),
        ("```sql\nSELECT 1", None),
        ("```sql\n```sql\nSELECT 1\n```\n```", None),
        ("<answer>SELECT 1</answer>", "SELECT 1"),
        ("<SOLUTION>SELECT 1</solution>", "SELECT 1"),
        ("<answer>SELECT 1</answer><answer>SELECT 2", "SELECT 1"),
        ("<answer>SELECT 1</solution>", None),
        ("<solution>SELECT 1</solution> <answer>SELECT 2</answer>", "SELECT 2"),
        ("<answer>```sql\nSELECT 1\n```</answer>", "SELECT 1"),
        ("```sql\nSELECT 1\n``` <answer>SELECT 2</answer>", "SELECT 1"),
        ("<think>```sql\nSELECT 1\n```</think>I do not know.", None),
        ("<think>```sql\nSELECT 1\n```", None),
        ("```sql\nSELECT 1\n```<think>more", "SELECT 1"),
        ("x</THINK>```sql\nSELECT 1\n```", "SELECT 1"),
        ("a</think>```sql\nSELECT 1\n```b</think>```sql\nSELECT 2\n```", "SELECT 2"),
        ("\u0130\u0130 <think></think>```SQL\nSELECT '\u0130'\n``` \u0130", "SELECT '\u0130'"),
        ("SELECT 1", None),
        ("", None),
        # The first word of the info string is the language; the rest are attributes.
        ("```sqlite3\nSELECT 1\n```", "SELECT 1"),
        ('```sql title="a.sql"\nSELECT 1\n```', "SELECT 1"),
        ("```sql {.numberLines}\nSELECT 1\n```", "SELECT 1"),
        ("```sql:a.sql\nSELECT 1\n```", "SELECT 1"),
        ("```sql,line-numbers\nSELECT 1\n```", "SELECT 1"),
        ("```SQL with=1\nSELECT 1\n```", "SELECT 1"),
        (
            "```sql with a AS (SELECT 1)\nSELECT * FROM a\n```",
            "with a AS (SELECT 1)\nSELECT * FROM a",
        ),
        ("```sql -- so\nSELECT 1\n```", "-- so\nSELECT 1"),
        ("```sql\r\nSELECT 1\r\n```\r\n", "SELECT 1"),
        ("```sql\rSELECT 1\r```", "SELECT 1"),
        ("```sql-server\nSELECT 1\n```", None),
        ("```sqlite4\nSELECT 1\n```", None),
        ("~~~sql\nSELECT 1\n~~~", "SELECT 1"),
        ("- a list\n      ```sql\n      SELECT 1\n      ```", "SELECT 1"),
        # What stands in a block of another language is no block.
        ("```sql\nSELECT 1\n```\n```text\nx\n```sql is done\nbye\n```", "SELECT 1"),
        ("````markdown\n```sql\nSELECT 1\n```\n````", None),
        ("```sql\nSELECT 1\n```\n```\n```sql\nSELECT 2\n```", "SELECT 1"),
        ("~~~\n```sql\nSELECT 1\n```\n~~~", None),
        ("```text\n``` x\n```\n```sql\nSELECT 1\n```", "SELECT 1"),
        ("`````\n```\n`````\n```sql\nSELECT 1\n```", "SELECT 1"),
        # A mention in a line is none.
        ("```sql\nSELECT 1\n```\nThe ```sql fence``` is above.", "SELECT 1"),
        ("```x``` and ```sql SELECT 1``` and more", "SELECT 1"),
        # Fences that touch the SQL, and those in a literal.
        ("```sql\nSELECT a FROM `t````", "SELECT a FROM `t`"),
        ("```sql\nSELECT `a` FROM t```", "SELECT `a` FROM t"),
        ("```sql\nSELECT '```' FROM t\n```", "SELECT '```' FROM t"),
        ("```sql\nSELECT 1 -- it's\n```", "SELECT 1 -- it's"),
        ("````sql\nSELECT '```\n```'\n````", "SELECT '```\n```'"),
        ("```sql\nSELECT 1\n`````", "SELECT 1"),
        # Tags around fences.
        ("<answer>\n```\nSELECT 1\n```\n</answer>", "SELECT 1"),
        ("<answer>So:\n```\nSELECT 1\n```\n</answer>", "SELECT 1"),
        ("<solution>```sqlite3\nSELECT 1\n```</solution>", "SELECT 1"),
        ("<solution>\n~~~\nSELECT 1\n~~~</solution>", "SELECT 1"),
        ("<answer>SELECT '`'</answer>", "SELECT '`'"),
        ("<answer>```SELECT 1```</answer>", "SELECT 1"),
        ("<answer> `SELECT a FROM t`\n</answer>", "SELECT a FROM t"),
        ("<answer>SELECT a FROM `t`</answer>", "SELECT a FROM `t`"),
    ],
)
def test_extract(text, sql):
    assert extract(text)[0] == sql


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("SELECT 1", "SELECT 1"),
        ("The answer is\nselect 1\nFROM t;\nbecause.", "select 1\nFROM t;"),
        ("SELECT 1\n\nWITH a AS (\nSELECT 2)\nSELECT * FROM a\n\nDone.",
         "WITH a AS (\nSELECT 2)\nSELECT * FROM a"),
        ("we SELECT 1", None),
        ("```sql\nSELECT 1\n```\nSELECT 2", "SELECT 1"),
        ("<think>SELECT 1", None),
        ("```\nSELECT 1\n```", "SELECT 1"),
        ("Answer:\nSELECT 1\nFROM t\n```", "SELECT 1\nFROM t"),
        ("SELECT 1 FROM t```", "SELECT 1 FROM t"),
        ("SELECT a FROM t;\n\nSelect the rows you need from it.", "SELECT a FROM t;"),
        ("SELECT a FROM t\n\nWith this we get the answer.\n\nSelect names, as you see.", "SELECT a FROM t"),
        ("SELECT a FROM t\n\nSELECT b FROM t", "SELECT b FROM t"),
        ("SELECT a FROM\n\nSELECT b FROM", "SELECT b FROM"),
    ],
)  # fmt: skip
def test_extract_bare_select(text, sql):
    assert extract(text, bare_select=True)[0] == sql


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [
        ("<think>a</think>```sql\nSELECT 1\n```", True),
        ("```sql\nSELECT 1\n```", True),
        ("<answer>SELECT 1</answer>", True),
        ("```sql\nSELECT 1\n``` ```sql\nSELECT 1\n```", False),
        ("</think></think>```sql\nSELECT 1\n```", False),
        ("nothing", False),
    ],
)
def test_well_formed(text, well_formed):
    assert extract(text)[1] == well_formed


PIECES = ["```", "```sql", "~~~", "````", "\n", "\n\n", " ", "`", "'", "SELECT 1", "<answer>", "</answer>",
          "</think>", "<think>", "text", "sqlite3", "{.a}", ";", "\r\n", "with"]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)))
def test_extract_takes_any_text(text):
    for bare_select in (False, True):
        sql, well_formed = extract(text, bare_select)
        assert sql is None or (sql and sql == sql.strip() and sql in text)
        assert isinstance(well_formed, bool)


QUERIES = st.lists(
    st.sampled_from(["SELECT", "a", "'x'", "'```'", "\n", "--c\n", "`b`", "(", ")", "1", ";"]), min_size=1
).map(" ".join).map("SELECT 1 ".__add__)  # fmt: skip


@given(QUERIES, st.sampled_from(["sql", "SQLite", "sqlite3"]), st.sampled_from(["", " x=1", " {.a}", "\r"]),
       st.sampled_from(["", "So:\n", "<answer>", "```text\nx\n```\n", "> ", "~~~\n```sql\n~~~\n"]),
       st.sampled_from(["", "\nDone.", "</answer>", "\n```text\n```sql x\n```"]))  # fmt: skip
def test_a_query_comes_back_from_its_fence(query, language, attributes, before, after):
    text = f"{before}```{language}{attributes}\n{query}\n```{after}"
    assert extract(text) == (query.strip(), True)


@given(st.text())
def test_lower_case_keeps_places(text):
    lower = lower_case(text)
    assert len(lower) == len(text)
    assert all(b == a.lower() for a, b in zip(text, lower, strict=True) if a.isascii())


@pytest.mark.parametrize(
    ("sql", "stripped", "kept"),
    [
        ("SELECT DISTINCT a", "SELECT  a", "SELECT DISTINCT a"),
        ("select count(distinct(a))", "select count((a))", "select count(distinct(a))"),
        ("SELECT a > = 1, b < = 2, c ! = 3", *["SELECT a >= 1, b <= 2, c != 3"] * 2),
        ("SELECT a >  = 1", *["SELECT a >  = 1"] * 2),
        ("SELECT '> = distinct', \"distinct\"", *["SELECT '> = distinct', \"distinct\""] * 2),
        ("SELECT 'it''s distinct' -- distinct", *["SELECT 'it''s distinct' -- distinct"] * 2),
        ("SELECT [distinct], `distinct` /* > = ", *["SELECT [distinct], `distinct` /* > = "] * 2),
        ("/* ' */ SELECT DISTINCT a", "/* ' */ SELECT  a", "/* ' */ SELECT DISTINCT a"),
        ("SELECT distinctive, _distinct", *["SELECT distinctive, _distinct"] * 2),
        ("SELECT a IS NOT DISTINCT FROM b", *["SELECT a IS NOT DISTINCT FROM b"] * 2),
        ("SELECT Year ( CURDATE() ) - 1", *["SELECT 2020 - 1"] * 2),
        ("SELECT \u0130, DISTINCT", "SELECT \u0130, ", "SELECT \u0130, DISTINCT"),
    ],
)
def test_spider_form(sql, stripped, kept):
    assert spider_form(sql, False) == stripped
    assert spider_form(sql, True) == kept


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER  \n BY a", True),
        ("SELECT * FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT rank() OVER (ORDER BY a) FROM t", False),
        ("SELECT ')' FROM t -- (\n ORDER BY a", True),
        ("SELECT 'order by' FROM t", False),
        ("SELECT border by FROM t", False),
        ("SELECT a FROM t ORDER /* up */ BY a", True),
        ("SELECT a FROM t ORDER -- up\n BY a", True),
        ("(SELECT a FROM t ORDER BY a)", True),
        ("((SELECT a FROM t ORDER BY a));", True),
        ("(SELECT a FROM t ORDER BY a) LIMIT 3", True),
        ("(SELECT a FROM t) ORDER BY a", True),
        ("(SELECT a FROM t ORDER BY a LIMIT 1) UNION ALL (SELECT 2)", False),
        ("(SELECT a FROM t) UNION ALL (SELECT 2) ORDER BY 1", True),
        ("WITH x AS (SELECT a FROM t ORDER BY a) SELECT * FROM x", False),
        ("WITH x(b) AS (SELECT a FROM t), y AS (SELECT 1) (SELECT * FROM x ORDER BY b)", True),
        ("(WITH x AS (SELECT a FROM t ORDER BY a) SELECT * FROM x)", False),
        ("SELECT a FROM t -- ORDER BY a", False),
        ("SELECT a /* ORDER BY a */ FROM t", False),
        ('SELECT "order by", [order by], `order by` FROM t', False),
        ("SELECT group_concat(a ORDER BY a) FROM t", False),
        ("(((", False),
        ("WITH", False),
    ],
)
def test_top_level_order_by(sql, ordered):
    assert has_top_level_order_by(sql) == ordered


@pytest.mark.parametrize(
    ("engine", "sql", "ordered"),
    [
        ("postgresql", "SELECT $$ ( $$ FROM t ORDER BY 1", True),
        ("postgresql", "SELECT E'\\'' || ')' || '(' FROM t ORDER BY 1", True),
        ("postgresql", "SELECT 1 /* /* */ ORDER BY 1 */", False),
        ("mysql", "SELECT '\\'(' FROM t ORDER BY 1", True),
        ("mysql", "SELECT 1 # ORDER BY 1", False),
        ("duckdb", "FROM t ORDER BY ALL", True),
    ],
)
def test_top_level_order_by_of_each_engine(engine, sql, ordered):
    assert has_top_level_order_by(sql, engine) == ordered


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("SELECT 1", "select"),
        ("  ;-- x\n/* y */ explain select", "explain"),
        ("/* open", ""),
        ("(SELECT 1)", ""),
        ("\ufeffEXPLAIN SELECT 1", "explain"),
        ("/**/\ufeff--\n\ufeff EXPLAIN QUERY PLAN SELECT 1", "explain"),
    ],
)
def test_first_word(sql, word):
    assert first_word(sql) == word


HOSTILE = [
    "<think>", "</think>", "```sql", "```sql\n", "```sql\n```", "`", "```", "``` ", "<answer>",
    "<answer></answer>", "<solution><answer>", "SELECT\n", "with ", "'", "''", '"', "[", "/*",
    "/* */", "--", "--\n", "distinct ", "is distinct ", "year( ", "year(", "is ", " ", "\t;", "(",
    "order by ", "order ", "\u0130", "> = ", "curdate ", "```\n", "```x\n", "~~~", "~~~\n", "```sql x ",
    "```sql x\n", "```sql '", "\n```", "``````", "````", "select 1;\n", "\n\nselect ", "$$", "$a", "e'", "\\'",
    "e'a' --\n", "with a as (", "as (),", ")", "(select ",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_is_linear(piece):
    def seconds(count):
        text = "select " + piece * count + " distinct > ="

        def read():
            extract(text)
            extract(text, bare_select=True)
            extract(f"<answer>{piece * count}x{piece * count}</answer>")
            spider_form(text, False)
            first_word(piece * count)
            has_top_level_order_by(text)

        return cpu_seconds(read)

    small, large = 4000, 32_000
    # Eight times the text: a quadratic algorithm takes 64 times as long.
    assert seconds(large) < 24 * max(seconds(small), 1e-4)
