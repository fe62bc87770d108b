"""Read-only, bounded SQLite: the connection a worker runs a model's SQL on, and its error classes.

| guard | stops |
|---|---|
| URI `mode=ro&immutable=1` | writes, locks |
| authorizer allow-list | DML, DDL, ATTACH, PRAGMA, transactions, some functions (`forbidden`) |
| progress handler | loops inside SQLite's virtual machine (`timeout`) |
| limits | long SQL, long values, deep or wide statements, LIKE bombs (`limit`) |
| heap limit | memory bombs (`memory`); the worker adds RLIMIT_AS |

One long opcode gets past all of these; the worker's own alarm ends the process (`killed`).
immutable skips the log of a database in WAL mode, and a journal: see `url.changes_beside`.
Not covered: a column whose name is not UTF-8, which Python's authorizer cannot be asked about.
"""

import contextlib
import marshal
import os
import re
import sqlite3
import time
from functools import partial

from rewards._sql.compare import Result, distinct_rows, short
from rewards._sql.text import SQL_BYTES, first_word

# Category numbers of sqlite3_limit(), which Python 3.10 does not name.
LIMITS = {
    0: 1_000_000,  # LENGTH: bytes of a value or a row; or of the whole file, where rows may be longer
    1: SQL_BYTES,  # SQL_LENGTH
    3: 200,  # EXPR_DEPTH
    4: 100,  # COMPOUND_SELECT
    7: 0,  # ATTACHED
    8: 500,  # LIKE_PATTERN_LENGTH
    11: 0,  # WORKER_THREADS
}
# SQLite's own, for reference answers that need them, and for what is compared with these.
WIDE_SQL_BYTES = 1_000_000
WIDE_LIMITS = {0: 1_000_000_000, 1: WIDE_SQL_BYTES, 3: 1000, 4: 500, 8: 50_000}
PRAGMA, READ, SELECT, FUNCTION, RECURSIVE = 19, 20, 21, 31, 33  # the authorizer's action codes
# Not a matter of the data: chance, memory by the gigabyte, code from a file, a raw pointer.
DENIED_FUNCTIONS = {"random", "randomblob", "zeroblob", "load_extension", "fts3_tokenizer"}
DENIED_TABLES = {"sqlite_stmt", "dbstat", "sqlite_dbpage", "sqlite_dbdata", "sqlite_dbptr"}
# What the authorizer lets through (EXPLAIN runs as what it explains; see _authorize).
NOT_QUERIES = {"explain": "not_select", "pragma": "forbidden"}
PROGRESS_STEPS = 10_000
CHUNK_ROWS = 64  # of at most a megabyte a value

# Messages, not codes: Python 3.10 has no codes. Anchored at the start, since many messages go on
# with a name from the query: no answer may talk itself into another class.
CLASSES = [
    (outcome, re.compile(pattern, re.S))
    for outcome, pattern in (
        ("schema_error", "no such |ambiguous column name|wrong number of arguments to function"),
        ("syntax_error", 'near ".*": syntax error|incomplete input|unrecognized token'),
        (
            "syntax_error",
            "the query contains a null|'utf-8' codec can't encode|SQL is of wrong type",
        ),
        ("multiple_statements", "You can only execute one statement"),
        ("forbidden", "not authorized|authorization denied|attempt to write a readonly"),
        ("timeout", "interrupted$"),
        ("memory", "out of memory$"),
        ("limit", "string or blob too big|query string is too large|Expression tree is too large"),
        ("limit", "LIKE or GLOB pattern too complex|too many |parser stack overflow|at most 64 t"),
        ("db_missing", "(database disk image is malformed|file is not a database)$"),
        ("db_missing", "(unable to open database file|disk I/O error)$|malformed database schema"),
    )
]


class Fault(Exception):
    """A query without a result: its outcome class, and what SQLite said."""

    def __init__(self, outcome: str, message: str = ""):
        super().__init__(message or outcome)
        self.outcome = outcome


def classify(error: Exception) -> Fault:
    if isinstance(error, MemoryError):
        return Fault("memory")
    for outcome, pattern in CLASSES:
        if pattern.match(str(error)):
            return Fault(outcome, str(error))
    return Fault("runtime_error", str(error))


def limiter():
    """set_limit(connection, category, value); by ctypes on Python 3.10, which has no setlimit."""
    if hasattr(sqlite3.Connection, "setlimit"):
        return sqlite3.Connection.setlimit
    import _sqlite3
    import ctypes

    # Looked up through the extension module, so that it is the very library the module uses.
    limit = ctypes.CDLL(getattr(_sqlite3, "__file__", None)).sqlite3_limit
    limit.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)

    def set_limit(connection: sqlite3.Connection, category: int, value: int) -> None:
        # CPython 3.10 keeps the sqlite3* in the first field after the object's header.
        handle = ctypes.c_void_p.from_address(id(connection) + object.__basicsize__)
        limit(handle, category, value)
        if limit(handle, category, -1) != value:
            raise RuntimeError("cannot set SQLite's limits here: use Python 3.11 or later")

    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        set_limit(connection, 1, SQL_BYTES)  # fails now or never
    return set_limit


class Clock:
    """When the running query's time is over, by time.monotonic(); one query runs at a time."""

    deadline = 0.0
    timeout_s = 0.0  # of it

    def connecting(self, most_s: float) -> contextlib.AbstractContextManager:
        """Waiting for a server, which is not the query's time."""
        raise NotImplementedError


class Database:
    """One guarded read-only connection."""

    def __init__(self, path: str, heap_bytes: int, set_limit, clock: Clock):
        quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        # cached_statements=0: the authorizer must see every query, and memory stays bounded.
        self.connection = sqlite3.connect(
            f"file://{quoted}?mode=ro&immutable=1",
            uri=True,
            isolation_level=None,
            cached_statements=0,
        )
        run = self.connection.execute
        run("PRAGMA temp_store=memory")
        run(f"PRAGMA hard_heap_limit={heap_bytes}")
        self.connection.text_factory = bytes  # any byte may stand in a schema
        found = run(
            "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'view')"
        ).fetchall()
        self.connection.text_factory = str
        schema = [(name.decode(errors="replace"), (sql or b"")[:20].lower()) for name, sql in found]
        self.tables = {name.lower() for name, _ in schema}
        # A virtual table sets itself up at its first use, by statements the authorizer would deny.
        virtual = [name for name, sql in schema if sql.startswith(b"create virtual")]
        for name in ("json_each", "json_tree", *virtual):
            try:
                run('SELECT 1 FROM "{}" LIMIT 1'.format(name.replace('"', '""'))).fetchall()
            except sqlite3.Error:
                continue  # not in this SQLite, or broken: a query that needs it will say so
        # What is stored is no longer than its file.
        size = min(os.path.getsize(path), WIDE_LIMITS[0])
        self.limits = LIMITS | {0: max(LIMITS[0], size)}
        self.set_limit = partial(set_limit, self.connection)
        self.set_limits(False)
        self.clock = clock
        self.table_read = self.denied = False
        self.connection.set_authorizer(self._authorize)
        self.connection.set_progress_handler(self._expired, PROGRESS_STEPS)

    def set_limits(self, wide: bool) -> None:
        self.wide = wide
        for category, value in {**self.limits, **(WIDE_LIMITS if wide else {})}.items():
            self.set_limit(category, value)

    def close(self) -> None:
        self.connection.close()

    def _expired(self) -> bool:
        return time.monotonic() > self.clock.deadline

    def _authorize(self, action, name, detail, schema, trigger) -> int:
        if action == READ and name not in DENIED_TABLES:
            if not self.table_read:  # a constant answer reads no table; CTE names come by here too
                self.table_read = name.lower() in self.tables
            return 0
        if action in (SELECT, RECURSIVE):
            return 0
        if action == FUNCTION and detail not in DENIED_FUNCTIONS:
            return 0
        if action == PRAGMA and name == "data_version":  # FTS5 asks for it before it reads
            return 0
        self.denied = True
        return 1

    def query(
        self,
        sql: str,
        max_rows: int,
        max_bytes: int,
        lenient_text: bool,
        distinct: bool = False,
        wide: bool = False,
    ) -> Result:
        """The result of one statement; Fault with the outcome class when there is none.

        lenient_text: bytes that are no text are left out. distinct: equal rows count once for max_rows
        and max_bytes. wide: with SQLite's own limits.
        """
        self.denied = self.table_read = False
        most = WIDE_SQL_BYTES if wide else SQL_BYTES
        if len(sql) > most // 4 and len(sql.encode(errors="replace")) > most:
            raise Fault("limit", "the query is too long")
        if wide != self.wide:
            self.set_limits(wide)
        word = first_word(sql)
        if word in NOT_QUERIES:
            raise Fault(NOT_QUERIES[word])
        try:
            try:
                return self._fetch(sql, max_rows, max_bytes, distinct)
            except sqlite3.OperationalError as error:
                if not lenient_text or not str(error).startswith("Could not decode to UTF-8"):
                    raise
            # The Spider evaluator drops bytes that are not UTF-8. Decoding in Python is slow, so
            # only the rare query that meets such bytes runs again with it.
            self.connection.text_factory = _decode
            try:
                return self._fetch(sql, max_rows, max_bytes, distinct)
            finally:
                self.connection.text_factory = str
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
            raise (Fault("forbidden", str(error)) if self.denied else classify(error)) from None

    def _fetch(self, sql: str, max_rows: int, max_bytes: int, distinct: bool) -> Result:
        cursor = self.connection.execute(sql)
        rows, parts, size = [], [], 0
        while True:
            chunk = cursor.fetchmany(CHUNK_ROWS)
            data = marshal.dumps(chunk, 2)
            rows += chunk
            parts.append(data)
            size += len(data)
            if len(rows) > max_rows or size > max_bytes:
                more = iter(partial(cursor.fetchmany, CHUNK_ROWS), [])
                if not distinct or not (found := distinct_rows(rows, more, max_rows, max_bytes)):
                    raise Fault("result_too_large")
                return found
            if len(chunk) < CHUNK_ROWS:
                break
        if not rows and cursor.description is None:
            raise Fault("no_sql", "no statement")
        return Result(rows, size, short(b"".join(parts)))


def _decode(data: bytes) -> str:
    return data.decode(errors="ignore")
