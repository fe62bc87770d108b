"""PostgreSQL through psycopg 3, for `_sql/engines`.

| guard | stops |
|---|---|
| READ ONLY transaction, rolled back | writes, nextval, SELECT INTO, FOR UPDATE, set_config that would last |
| the extended protocol | a second statement |
| first word (`Engine.check`) | COPY, SET, DO, CALL, LISTEN: a read-only transaction lets these run |
| statement_timeout, set anew in each transaction | loops, pg_sleep, waiting for locks |
| `denied` | see there |

A query is one statement on the server, so its timer runs from the first row to the last, whatever
set_config says meanwhile. Rows are streamed: they wait in the network until they are asked for.
The role should be one that may only read: files and programs are kept from a superuser by `denied` alone.
Not covered: functions and foreign tables of the database's own that reach outside of it.
"""

import re

import psycopg
from psycopg import capabilities
from psycopg.adapt import AdaptersMap, Loader
from psycopg.types.numeric import FloatLoader, IntLoader

from rewards._sql.engines import CHUNK_ROWS, CONNECT_S, Engine, number

# They act on the session or on others' sessions, on large objects, replication or another
# connection, or run text as SQL, in which a name could hide. U&"..." could spell any name. pg_sleep
# has the time limit.
DENIED = (
    r"set_config|pg_(?:terminate|cancel)_backend|pg_(?:try_)?advisory_\w+|pg_notify"
    r"|pg_(?:create|drop|copy|sync|replication|logical|promote)\w*"
    r"|lo_(?:import|export|creat|create|open|put|unlink|from_bytea)"
    r"|(?:query|cursor)_to_xml\w*|ts_stat|ts_rewrite|dblink\w*|crosstab\w*|connectby|xpath_table"
)
# What the server keeps from ordinary roles: files, programs, passwords, other sessions. A superuser
# (or a role with more rights than it needs) is refused the same.
PRIVILEGED = """
SELECT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
AND NOT has_function_privilege('public', oid, 'EXECUTE')
UNION SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
AND relkind IN ('r', 'v') AND NOT has_table_privilege('public', oid, 'SELECT')
"""
TABLES = """
SELECT lower(relname) FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'p', 'f')
AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_|^information_schema$')
"""
OUTCOMES = {  # by SQLSTATE, or its class
    "42601": "syntax_error",
    "08P01": "syntax_error",  # $1, and nobody to say what it is
    "42P01": "schema_error", "42703": "schema_error", "42702": "schema_error",
    "42883": "schema_error", "42725": "schema_error", "42704": "schema_error",
    "42P02": "schema_error", "42P09": "schema_error", "3F": "schema_error",
    "42501": "forbidden", "25006": "forbidden",
    "57014": "timeout",
    "53200": "memory", "53100": "limit", "53400": "limit", "54": "limit",
    "57P": "", "25P03": "", "08": "",
    "58030": "db_missing", "XX001": "db_missing", "XX002": "db_missing",
}  # fmt: skip


class Number(Loader):
    def load(self, data):
        return number(bytes(data).decode())


class Boolean(Loader):
    def load(self, data):
        return int(bytes(data) == b"t")


def _adapters() -> AdaptersMap:
    """Numbers and bytes; any other type stays the text that the server sends."""
    types = psycopg.adapters.types
    adapters = AdaptersMap(types=types)
    for name in ("int2", "int4", "int8", "oid"):
        adapters.register_loader(name, IntLoader)
    for name in ("float4", "float8"):
        adapters.register_loader(name, FloatLoader)
    adapters.register_loader("bytea", psycopg.types.string.ByteaLoader)
    adapters.register_loader("numeric", Number)
    adapters.register_loader("bool", Boolean)
    adapters.register_loader(0, psycopg.types.string.TextLoader)
    return adapters


class _Context:
    adapters = _adapters()
    connection = None


class Database(Engine):
    errors = (psycopg.Error, OSError)

    def connect(self) -> None:
        self.connection = psycopg.connect(
            self.url,
            autocommit=True,
            prepare_threshold=None,
            context=_Context,
            connect_timeout=CONNECT_S,
            client_encoding="utf8",
            fallback_application_name="verl-lab",
        )
        self.tables = {name for (name,) in self.connection.execute(TABLES)}
        privileged = [name for (name,) in self.connection.execute(PRIVILEGED)]
        names = "|".join(map(re.escape, privileged))
        self.denied = re.compile(rf'\bu&"|\b(?:{DENIED}|{names})\b', re.I)

    def start(self, sql: str) -> str:
        self.check(sql)
        limit_ms = max(1, int(self.clock.timeout_s * 1e3))
        self.connection.execute(f"BEGIN READ ONLY; SET LOCAL statement_timeout = {limit_ms}")
        return sql

    def chunks(self, sql: str):
        size = CHUNK_ROWS if capabilities.has_stream_chunked() else 1
        chunk = []
        with self.connection.cursor() as cursor:
            for row in cursor.stream(sql, size=size):
                chunk.append(row)
                if len(chunk) == CHUNK_ROWS:
                    yield chunk
                    chunk = []
        yield chunk

    def rollback(self) -> None:
        self.connection.execute("ROLLBACK")

    def outcome_of(self, error: Exception) -> str:
        state = getattr(error, "sqlstate", None)
        if state is None:  # said by the driver, not by the server
            if isinstance(error, psycopg.ProgrammingError):
                return "not_select"  # it gave no rows
            return "memory" if "memory" in str(error) else ""
        for key in (state, state[:3], state[:2]):
            if key in OUTCOMES:
                return OUTCOMES[key]
        return "runtime_error"
