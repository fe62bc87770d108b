"""Databases by URL (`_sql/url`), as a worker sees them: one connection each, read-only and bounded.

For every query, on every engine: one statement, a SELECT, in a read-only transaction that is rolled
back, under the engine's own time limit; rows are fetched 64 at a time and counted. The worker's
memory limit and its alarm, which ends the process, stand behind all of it. Connections are kept, and
made again when they are lost. What each engine adds is in `_sql/postgres`, `_sql/mysql` and
`_sql/duckdb`; what they all cannot do is bound what a query costs the server in that time.

Values: numbers are numbers (DECIMAL '1.50' is 1.5, true is 1), bytes are bytes, NULL is NULL;
everything else is text, as the server (or Python) writes it: dates, UUIDs, JSON, arrays. A decimal with
more digits than a float is kept beside the float that is next to it (`Exact`).
What a query may say is judged by its tokens (`_sql/lex`) and by the server's own catalogue.
`no_table_read` is a guess here: no word of the query is the name of a table or view.
"""

import contextlib
import importlib
import json
import marshal
import re
import sys
import time
from decimal import Decimal
from itertools import chain
from math import isfinite, nan
from typing import Any

from rewards._sql.compare import Result, distinct_rows, short
from rewards._sql.guard import WIDE_SQL_BYTES, Clock, Fault
from rewards._sql.lex import Lexer, Token, closings, lexer, tokens, words
from rewards._sql.text import SQL_BYTES, has_second_statement
from rewards._sql.url import DRIVERS, hidden, scheme_of

MODULES = {"psycopg": "postgres", "pymysql": "mysql", "duckdb": "duckdb"}
CONNECT_S = 5  # for the driver,
CONNECT_MOST_S = 10.0  # and for all of it: names to look up, what is asked first
RETRY_S = 5.0  # so long nobody tries a server that was not there
ATTEMPTS = 2  # of a query whose connection is lost
CHUNK_ROWS = 64
DIGITS = 300  # a float has not more
PLAIN = {int, float, str, bytes, type(None)}
NAMES = ("word", "name")
OPENING = (("symbol", ";"), ("symbol", "("))  # what may stand before a query's first word

QUERIES = {"select", "with", "values", "table"}
NOT_QUERIES = {"explain", "describe", "desc", "show", "analyze", "help"}
STATEMENTS = re.compile(
    "alter|attach|begin|call|checkpoint|comment|commit|copy|create|deallocate|declare|delete|detach"
    "|discard|do|drop|execute|export|fetch|flush|get|grant|handler|import|insert|install|kill|listen"
    "|load|lock|merge|notify|optimize|pragma|prepare|reindex|release|rename|repair|replace|reset"
    "|revoke|rollback|savepoint|set|shutdown|start|truncate|uninstall|unlisten|unlock|update|use|vacuum"
)
_down: dict[str, tuple[float, str]] = {}  # by URL: until when, and why


class Lost(Exception):
    """The connection is gone."""


class Engine:
    """A database on one of the engines; `query` and `table_read` as in `guard.Database`.

    An engine's class says how to connect, and what one query is made of. errors: what its driver
    raises. denied: functions that no query may call. superuser: who may do more than read, if the
    role is such a one. rules: how the server reads a query's text.
    """

    errors: tuple = ()
    denied: frozenset[str] = frozenset()
    superuser = ""

    def __init__(self, url: str, heap_bytes: int, clock: Clock):
        self.url = url
        self.heap_bytes = heap_bytes
        self.clock = clock
        self.connection: Any = None  # the driver's
        self.tables: set[str] = set()
        self.table_read = False
        self.max_rows = 0  # that are looked at, of the query that runs
        self.rules: Lexer = lexer(scheme_of(url))

    def connect(self) -> None:
        """Set `connection` and `tables`."""
        raise NotImplementedError

    def start(self, sql: str):
        """Start the transaction; returns the query to fetch. Fault if it is none."""
        raise NotImplementedError

    def chunks(self, query):
        """Run the query; yields lists of rows."""
        raise NotImplementedError

    def rollback(self) -> None:
        """End the transaction, and everything that the query did to the session."""
        self.connection.rollback()

    def outcome_of(self, error: Exception) -> str:
        """The outcome class of one of `errors`; empty if the connection is lost."""
        raise NotImplementedError

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(*self.errors):
                connection.close()

    def open(self) -> None:
        """Connect, unless that is done. Fault "db_missing" if there is nobody."""
        if self.connection is not None:
            return
        until, why = _down.get(self.url, (0.0, ""))
        if time.monotonic() > until:
            try:
                with self.clock.connecting(CONNECT_MOST_S):
                    self.connect()
                return
            except (*self.errors, ValueError, RuntimeError) as error:  # a bad port; no cryptography
                self.close()
                why = hidden(str(error), self.url)
                _down[self.url] = time.monotonic() + RETRY_S, why
        raise Fault("db_missing", why)

    def query(
        self,
        sql: str,
        max_rows: int,
        max_bytes: int,
        lenient_text: bool,
        distinct: bool = False,
        wide: bool = False,
    ) -> Result:
        """The result of one statement; Fault with the outcome class when there is none."""
        self.table_read = False
        self.max_rows = sys.maxsize if distinct else max_rows
        try:
            if len(sql.encode()) > (WIDE_SQL_BYTES if wide else SQL_BYTES):
                raise Fault("limit", "the query is too long")
        except UnicodeEncodeError as error:
            raise Fault("syntax_error", str(error)) from None
        if "\0" in sql:
            raise Fault("syntax_error", "the query contains a null character")
        for _ in range(ATTEMPTS):
            self.open()
            try:
                return self._run(sql, max_rows, max_bytes, distinct)
            except Lost:
                continue
        raise Fault("killed", "the connection was lost again")

    def _run(self, sql: str, max_rows: int, max_bytes: int, distinct: bool) -> Result:
        keep = False
        try:
            said = {token.text for token in tokens(sql, self.rules) if token.kind in NAMES}
            self.table_read = not self.tables.isdisjoint(said)
            query = self.start(sql)
            result = _fetch(self.chunks(query), max_rows, max_bytes, distinct)
            keep = True
            if time.monotonic() > self.clock.deadline:  # MySQL's SLEEP says 1 when it is cut short
                raise Fault("timeout")
            return result
        except Fault as fault:
            keep = fault.outcome != "result_too_large"  # the rest would have to be read
            raise
        except (*self.errors, ValueError, OverflowError, RecursionError) as error:
            known = isinstance(error, self.errors)
            outcome = self.outcome_of(error) if known else "runtime_error"
            keep = known and outcome not in ("", "memory")
            if not outcome:
                raise Lost from None
            if outcome == "syntax_error" and has_second_statement(sql, scheme_of(self.url)):
                outcome = "multiple_statements"
            raise Fault(outcome, hidden(str(error), self.url)) from None
        finally:
            if keep:
                try:
                    self.rollback()
                except self.errors:
                    keep = False
            if not keep:
                self.close()

    def check(self, sql: str) -> None:
        """Fault unless the text looks like one query; the read-only transaction does not rely on it."""
        found = list(tokens(sql, self.rules))
        self.check_comments([token.text for token in found if token.kind == "comment"])
        found = [token for token in found if token.kind != "comment"]
        first = next((token for token in found if token[:2] not in OPENING), None)
        if first is None:
            raise Fault("no_sql", "no statement")
        word = first.text if first.kind == "word" else ""
        if word not in QUERIES:
            known = "not_select" if word in NOT_QUERIES else "syntax_error"
            raise Fault("forbidden" if STATEMENTS.fullmatch(word) else known, f"no query: {word}")
        for name in called(found):
            if name in self.denied:
                raise Fault("forbidden", f"not allowed: {name}")
        self.check_names(found)

    def check_comments(self, comments: list[str]) -> None:
        """Fault for a comment that is none to the server."""

    def check_names(self, found: list[Token]) -> None:
        """Fault for what else the engine's queries may not say; found: the text but its comments."""


def called(found: list[Token]) -> set[str]:
    """The names that a bracket follows, as it does in each call, but those that only name something:

    an alias, `AS name (columns)`, and a CTE, `name (columns) AS (SELECT ...`.
    """
    said, close = [*words(found), ""], closings(found)
    names = set()
    for bracket in close:
        if not bracket or found[bracket - 1].kind not in NAMES:
            continue
        before = found[bracket - 2].text if bracket > 1 else ""
        if before == "as" == said[bracket - 2]:
            continue
        after = said[close[bracket] + 1 : close[bracket] + 3]
        body = close[bracket] + (3 if after == ["as", "materialized"] else 2)
        named = after[:1] == ["as"] and before in ("with", "recursive", ",")
        if not (named and body in close and said[body + 1] in ("select", "with")):
            names.add(found[bracket - 1].text)
    return names


def _fetch(chunks, max_rows: int, max_bytes: int, distinct: bool) -> Result:
    """distinct: equal rows count once for the limits."""
    rows, parts, size = [], [], 0
    chunks = map(_plain_rows, chunks)
    for chunk in chunks:
        data = marshal.dumps(chunk, 2)
        rows += chunk
        parts.append(data)
        size += len(data)
        if len(rows) > max_rows or size > max_bytes:
            found = distinct_rows(rows, chunks, max_rows, max_bytes) if distinct else None
            if not found:
                raise Fault("result_too_large")
            rows, parts, size = found.raw, [found.key], found.size
    exact = rows if tuple in set(map(type, chain.from_iterable(rows))) else None
    if exact:
        rows = [tuple(float(v[0]) if type(v) is tuple else v for v in row) for row in exact]
    return Result(rows, size, short(b"".join(parts)), exact)


def _plain_rows(chunk: list[tuple]) -> list[tuple]:
    kinds = set(map(type, chain.from_iterable(chunk)))
    if kinds <= PLAIN and not (float in kinds and any(v != v for row in chunk for v in row)):
        return chunk
    return [tuple(map(plain, row)) for row in chunk]


class Exact(str):
    """The digits of a decimal that no float has."""


def plain(value):
    """A driver's value as a number, text, bytes or None; a decimal beyond a float as (digits,)."""
    kind = type(value)
    if kind in PLAIN:
        return value if value == value else nan  # one NaN, of one object
    if kind is bool:
        return int(value)
    if kind is Decimal:
        return plain(number(str(value)))
    if kind is Exact:
        return (str(value),)
    if kind in (list, tuple):
        return json.dumps([*map(in_text, value)], default=repr)
    if kind is dict:
        pairs = {str(in_text(key)): in_text(part) for key, part in value.items()}
        return json.dumps(pairs, default=repr)
    return bytes(value) if kind in (bytearray, memoryview) else str(value)


def in_text(value):
    """In a list or the like, which becomes text: equal numbers are written alike."""
    value = plain(value)
    if type(value) is float and value.is_integer():
        return int(value)
    return value[0] if type(value) is tuple else value


def number(text: str) -> int | float | Exact:
    """The number that a DECIMAL's text says."""
    whole, _, rest = text.partition(".")
    if len(whole) <= DIGITS:
        if whole.lstrip("-").isdigit() and not rest.strip("0"):
            return int(whole)
        close = float(text)
        if not isfinite(close) or Decimal(repr(close)) == Decimal(text):
            return close
        text = format(Decimal(text), "f")
    return Exact(text.rstrip("0").rstrip(".") if "." in text else text)


def connect(url: str, heap_bytes: int, clock: Clock) -> Engine:
    """A database by its URL, connected. Fault "db_missing" if there is nobody."""
    module = importlib.import_module(f"rewards._sql.{MODULES[DRIVERS[scheme_of(url)]]}")
    engine = module.Database(url, heap_bytes, clock)
    engine.open()
    return engine
