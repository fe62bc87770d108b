"""Databases by URL (`_sql/url`), as a worker sees them: one connection each, read-only and bounded.

For every query, on every engine: one statement, a SELECT, in a read-only transaction that is rolled
back, under the engine's own time limit; rows are fetched 64 at a time and counted. The worker's
memory limit and its alarm, which ends the process, stand behind all of it. Connections are kept, and
made again when they are lost. What each engine adds is in `_sql/postgres`, `_sql/mysql` and
`_sql/duckdb`; what they all cannot do is bound what a query costs the server in that time.

Values: numbers are numbers (DECIMAL '1.50' is 1.5, true is 1), bytes are bytes, NULL is NULL;
everything else is text, as the server (or Python) writes it: dates, UUIDs, JSON, arrays.
`no_table_read` is a guess here: no word of the query is the name of a table or view.
"""

import contextlib
import importlib
import json
import marshal
import re
import time
from decimal import Decimal
from itertools import chain
from typing import Any

from rewards._sql.compare import Result, short
from rewards._sql.guard import Clock, Fault
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

# What may stand before the first word. Where dialects differ in what is a comment (nested ones, a
# lone carriage return), the text is refused: the word must be the one that the server sees.
_START = re.compile(
    r"(?:[\s;(]|--[^\r\n]*(?:\r?\n|\Z)|#[^\r\n]*(?:\r?\n|\Z)|/\*(?:(?!/\*|\*/)[\s\S])*\*/)*(\w*)"
)
_WORDS = re.compile(r"'[^']*'?|--[^\n]*|/\*(?s:.*?)(?:\*/|\Z)|(?P<word>\w+)")
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
    raises. denied: what no query may say.
    """

    errors: tuple = ()
    denied: re.Pattern | None = None

    def __init__(self, url: str, heap_bytes: int, clock: Clock):
        self.url = url
        self.heap_bytes = heap_bytes
        self.clock = clock
        self.connection: Any = None  # the driver's
        self.tables: set[str] = set()
        self.table_read = False

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

    def query(self, sql: str, max_rows: int, max_bytes: int, lenient_text: bool) -> Result:
        """The result of one statement; Fault with the outcome class when there is none."""
        self.table_read = False
        try:
            if len(sql.encode()) > SQL_BYTES:
                raise Fault("limit", "the query is too long")
        except UnicodeEncodeError as error:
            raise Fault("syntax_error", str(error)) from None
        if "\0" in sql:
            raise Fault("syntax_error", "the query contains a null character")
        for _ in range(ATTEMPTS):
            self.open()
            try:
                return self._run(sql, max_rows, max_bytes)
            except Lost:
                continue
        raise Fault("killed", "the connection was lost again")

    def _run(self, sql: str, max_rows: int, max_bytes: int) -> Result:
        keep = False
        try:
            words = {match["word"].lower() for match in _WORDS.finditer(sql) if match["word"]}
            self.table_read = not self.tables.isdisjoint(words)
            query = self.start(sql)
            result = _fetch(self.chunks(query), max_rows, max_bytes)
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
            if outcome == "syntax_error" and has_second_statement(sql):
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
        start = _START.match(sql)
        word = start[1].lower()
        if word not in QUERIES:
            if start.end() == len(sql) and not word:
                raise Fault("no_sql", "no statement")
            known = "not_select" if word in NOT_QUERIES else "syntax_error"
            raise Fault("forbidden" if STATEMENTS.fullmatch(word) else known, f"no query: {word}")
        if self.denied and (found := self.denied.search(sql)):
            raise Fault("forbidden", f"not allowed: {found[0]}")


def _fetch(chunks, max_rows: int, max_bytes: int) -> Result:
    rows, parts, size = [], [], 0
    for chunk in chunks:
        if not set(map(type, chain.from_iterable(chunk))) <= PLAIN:
            chunk = [tuple(map(plain, row)) for row in chunk]
        data = marshal.dumps(chunk, 2)
        rows += chunk
        parts.append(data)
        size += len(data)
        if len(rows) > max_rows or size > max_bytes:
            raise Fault("result_too_large")
    return Result(rows, size, short(b"".join(parts)))


def plain(value):
    """A driver's value as a number, text, bytes or None."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is bool:
        return int(value)
    if kind is Decimal:
        return number(str(value))
    if kind in (list, tuple):
        return json.dumps([*map(plain, value)], default=repr)
    if kind is dict:
        pairs = {str(plain(key)): plain(part) for key, part in value.items()}
        return json.dumps(pairs, default=repr)
    return bytes(value) if kind in (bytearray, memoryview) else str(value)


def number(text: str) -> int | float | str:
    """The number that a DECIMAL's text says; as close as a float is, where it is not whole.

    The text itself, where it is so large that no float is close.
    """
    whole, _, rest = text.partition(".")
    if len(whole) > DIGITS:
        return text
    return int(whole) if whole.lstrip("-").isdigit() and not rest.strip("0") else float(text)


def connect(url: str, heap_bytes: int, clock: Clock) -> Engine:
    """A database by its URL, connected. Fault "db_missing" if there is nobody."""
    module = importlib.import_module(f"rewards._sql.{MODULES[DRIVERS[scheme_of(url)]]}")
    engine = module.Database(url, heap_bytes, clock)
    engine.open()
    return engine
