"""DuckDB files, for `_sql/engines`.

| guard | stops |
|---|---|
| read_only | writes, nextval, checkpoints |
| enable_external_access = false | COPY, ATTACH, EXPORT, read_csv, read_text, glob, extensions, secrets |
| lock_configuration | SET, RESET and PRAGMA that would lift any of this |
| python_enable_replacements = false | tables that are Python's variables |
| DuckDB's own parser | a second statement, what is no SELECT |
| memory_limit, no folder for temporary files, one thread | memory bombs, spilling |
| interrupt | loops, cross joins |

The file must not be open for writing elsewhere while it is read: DuckDB allows only one or the other.
Not covered: PIVOT without a list of values, which is more than one statement (`not_select`);
TIMESTAMP WITH TIME ZONE in a result, unless the module pytz is installed.
"""

import threading
import time

import duckdb

from rewards._sql.engines import CHUNK_ROWS, Engine, Fault
from rewards._sql.guard import Clock
from rewards._sql.url import file_of

POLL_S = 0.02
ROWS_MOST = 10**9
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "enable_external_access": False,
    "lock_configuration": True,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
}
TABLES = "SELECT lower(table_name) FROM information_schema.tables"
SELECT = duckdb.StatementType.SELECT
NOT_QUERIES = {duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI}
SCHEMA_ERRORS = "Referenced ", "Ambiguous ", "Table ", "Values list ", "No function matches"


class Watch(threading.Thread):
    """Interrupts a connection's query when its time is over."""

    def __init__(self, connection, clock: Clock):
        super().__init__(daemon=True)
        self.connection, self.clock = connection, clock
        self.lock = threading.Lock()
        self.running = False
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(POLL_S):
            with self.lock:  # so that it is this query, not the next
                if self.running and time.monotonic() > self.clock.deadline:
                    self.connection.interrupt()


class Database(Engine):
    errors = (duckdb.Error,)
    watch: Watch | None = None

    def connect(self) -> None:
        # A quarter of the worker's memory: four files may be open, and the worker needs some.
        config = {**CONFIG, "memory_limit": f"{self.heap_bytes // 2}B"}
        self.connection = duckdb.connect(file_of(self.url), read_only=True, config=config)
        self.tables = {name for (name,) in self.connection.execute(TABLES).fetchall()}
        self.watch = Watch(self.connection, self.clock)
        self.watch.start()

    def start(self, sql: str):
        statements = self.connection.extract_statements(sql)
        if len(statements) != 1:
            raise Fault("multiple_statements" if statements else "no_sql", "not one statement")
        kind = statements[0].type
        if kind != SELECT:
            raise Fault("not_select" if kind in NOT_QUERIES else "forbidden", f"no query: {kind}")
        self.connection.execute("BEGIN TRANSACTION READ ONLY")
        self._watched(True)
        return statements[0]

    def chunks(self, statement):
        self.connection.execute(statement)
        types = [str(column[1]) for column in self.connection.description]
        if any("_NS" in kind for kind in types):  # Python's own types end at microseconds
            parts = (f"CAST(#{n} AS VARCHAR)" if "_NS" in kind else f"#{n}"
                     for n, kind in enumerate(types, 1))  # fmt: skip
            getattr(
                self.connection, "abort", bool
            )()  # what DuckDB 2 keeps of a result that is not fetched
            relation = self.connection.sql(statement).project(", ".join(parts))
            yield relation.limit(min(self.max_rows, ROWS_MOST) + 1).fetchall()
            return
        while chunk := self.connection.fetchmany(CHUNK_ROWS):
            yield chunk

    def rollback(self) -> None:
        if self.watch.running:
            self._watched(False)
            self.connection.rollback()

    def close(self) -> None:
        if self.watch is not None:
            self._watched(False)
            self.watch.ended.set()
            self.watch.join()
            self.watch = None
        super().close()

    def _watched(self, running: bool) -> None:
        with self.watch.lock:
            self.watch.running = running

    def outcome_of(self, error: Exception) -> str:
        message = str(error)
        if isinstance(error, duckdb.InterruptException):
            return "timeout"
        if isinstance(error, duckdb.OutOfMemoryException):
            return "memory"
        if isinstance(error, duckdb.PermissionException) or "in read-only mode!" in message:
            return "forbidden"
        if message.startswith("Parser Error: Max expression depth"):
            return "limit"
        if isinstance(error, duckdb.ParserException | duckdb.SyntaxException):
            return "syntax_error"
        named = message.removeprefix("Binder Error: ").startswith(SCHEMA_ERRORS)
        if isinstance(error, duckdb.CatalogException) or (
            isinstance(error, duckdb.BinderException) and named
        ):
            return "schema_error"
        if isinstance(error, duckdb.FatalException | duckdb.InternalException):
            return ""  # the database is closed by it
        return "runtime_error"
