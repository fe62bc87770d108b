"""The lexer of each engine: what is a literal, a name or a comment to whom."""

import sqlite3

import pytest
from helpers import cpu_seconds
from hypothesis import given
from hypothesis import strategies as st

from rewards._sql.lex import closings, code, lexer, tokens
from rewards._sql.text import has_top_level_order_by

ENGINES = ["", "postgresql", "duckdb", "mysql"]
SIGNS = "'\"`[]$eEuU&\\-#/*(),;.\n\r\t x1_\ufeff\xe9"


def kinds(sql, engine, **more):
    return [(token.kind, token.text) for token in tokens(sql, lexer(engine, **more))]


@pytest.mark.parametrize(
    ("engine", "sql", "found"),
    [
        ("", "[a'b] `c``d`", [("name", "a'b"), ("name", "c`d")]),
        ("", "'it''s' \\", [("text", "'it''s'"), ("symbol", "\\")]),
        ("", "/* open", [("comment", "/* open")]),
        ("", "--x\ry\nz", [("comment", "--x\ry"), ("word", "z")]),
        ("postgresql", "/* open", [("broken", "/* open")]),
        ("postgresql", "/* /* */ x */ Y", [("comment", "/* /* */ x */"), ("word", "y")]),
        ("postgresql", "--x\rY", [("comment", "--x"), ("word", "y")]),
        ("postgresql", "$$a'$$ $x$ $$ $x$ $1", [("text", "$$a'$$"), ("text", "$x$ $$ $x$"), ("symbol", "$"),
                                              ("symbol", "1")]),
        ("postgresql", "a$b$c$b$", [("word", "a$b$c$b$")]),
        ("postgresql", "E'\\'', 'b\\' x", [("text", "E'\\''"), ("symbol", ","), ("text", "'b\\'"), ("word", "x")]),
        ("postgresql", "E'a'\n'b\\'c'", [("text", "E'a'\n'b\\'c'")]),
        ("postgresql", "E'a'--'b'", [("text", "E'a'"), ("comment", "--'b'")]),
        ("postgresql", "E'a'--'b\n'c\\'d'", [("text", "E'a'--'b\n'c\\'d'")]),
        ("postgresql", "U&\"\\0061\"", [("broken", "U&\"\\0061\"")]),
        ("postgresql", "U&'\\0061'", [("text", "U&'\\0061'")]),
        ("postgresql", '"A""B"', [("name", 'a"b')]),
        ("postgresql", "1.5e3f", [("symbol", "1.5e3"), ("word", "f")]),
        ("mysql", "'a\\'b' \"c\\\"d\"", [("text", "'a\\'b'"), ("text", '"c\\"d"')]),
        ("mysql", "1a --b\n# c", [("word", "1a"), ("symbol", "-"), ("symbol", "-"), ("word", "b"), ("comment", "# c")]),
        ("mysql", "-- b\nc", [("comment", "-- b"), ("word", "c")]),
        ("mysql", "/* /* */ x", [("comment", "/* /* */"), ("word", "x")]),
        ("mysql", "/* open", [("broken", "/* open")]),
    ],
)  # fmt: skip
def test_tokens(engine, sql, found):
    assert kinds(sql, engine) == found


def test_what_a_server_may_be_told_to_do_otherwise():
    assert kinds("'a\\' b", "mysql", backslashes=False) == [("text", "'a\\'"), ("word", "b")]
    assert kinds('"a"', "mysql", names=True) == [("name", "a")]
    assert kinds("'a\\'b'", "postgresql", backslashes=True) == [("text", "'a\\'b'")]


@given(st.text(alphabet=SIGNS, max_size=60), st.sampled_from(ENGINES))
def test_nothing_is_left_out(sql, engine):
    """Between the tokens is white space alone, and they are in order."""
    at = 0
    for token in tokens(sql, lexer(engine)):
        assert (
            not sql[at : token.start].strip(" \t\n\r\f\v\ufeff") and token.end > token.start >= at
        )
        at = token.end
    assert not sql[at:].strip(" \t\n\r\f\v\ufeff")


@given(
    st.lists(
        st.sampled_from(
            ["'it''s'", '"a""b"', "[c'd]", "`e``f`", "g", "7", "--x'\n", "/* ' */", "\ufeff"]
        )
    )
)
def test_sqlite_reads_the_same(parts):
    """As many columns as there are tokens that are no comment."""
    found = code(" ".join(parts), lexer())
    with sqlite3.connect(":memory:") as connection:
        row = "CREATE TABLE t (g, [a\"b], [c'd], [e`f])"
        connection.execute(row)
        sql = "SELECT " + " , ".join(" ".join(parts)[t.start : t.end] for t in found) + " FROM t"
        if found:
            assert len(connection.execute(sql).description) == len(found)
        connection.execute(
            "SELECT 1" + "".join(f" /**/ {part} " for part in parts if part[0] in "-/\ufeff")
        )
    connection.close()


PIECES = ["'", "''", '"', "[", "`", "$", "$$", "$a", "$a$", "E'", "E'a' --\n", "\\'", "/*", "/* */", "--", "--\n",
          "(", ")", "1e", "a", "as (", "with a as (", "order by "]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear(engine, piece):
    def seconds(length):
        text = "with " + piece * (length // len(piece))
        return cpu_seconds(lambda: has_top_level_order_by(text, engine))

    # Eight times the text: a quadratic algorithm takes 64 times as long.
    assert seconds(40_000) < 30 * max(seconds(5_000), 1e-3)


def test_brackets():
    found = code("((a) ')' (", lexer())
    assert closings(found) == {0: 6, 1: 3, 5: 6}
