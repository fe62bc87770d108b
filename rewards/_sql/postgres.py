"""PostgreSQL through psycopg 3, for `_sql/engines`.

| guard | stops |
|---|---|
| READ ONLY transaction, rolled back | writes, nextval, SELECT INTO, FOR UPDATE, set_config that would last |
| the extended protocol | a second statement |
| first word (`Engine.check`) | COPY, SET, DO, CALL, LISTEN: a read-only transaction lets these run |
| statement_timeout, set anew in each transaction | loops, pg_sleep, waiting for locks |
| no superuser, unless `allow_superuser` | files, programs, pages of tables, passwords |
| `DENIED`, by the server's catalogue | functions that act on more than their result, or run text |
| `PRIVILEGED` | what a role with more rights than it needs could read |

A query is one statement on the server, so its timer runs from the first row to the last, whatever
set_config says meanwhile. Rows are streamed: they wait in the network until they are asked for.
The role should be one that may only read: from a superuser much is kept by `DENIED` alone.
Not covered: functions and foreign tables of the database's own that reach outside of it.
"""

import re
from itertools import pairwise

import psycopg
from psycopg import capabilities
from psycopg.adapt import AdaptersMap, Loader
from psycopg.types.numeric import FloatLoader, IntLoader

from rewards._sql.engines import CHUNK_ROWS, CONNECT_S, NAMES, Engine, Fault, in_text, number
from rewards._sql.lex import lexer

# By PostgreSQL's own rule a function that acts on anything is volatile: on the session or others, locks,
# large objects, replication, another connection, pages of tables (pg_surgery, pg_visibility). So each
# one in C is denied but these; those in SQL and the like are the database's own.
HARMLESS = """
clock_timestamp,timeofday,random,random_normal,gen_random_uuid,gen_random_bytes,gen_salt,normal_rand,
uuid_generate_v1,uuid_generate_v1mc,uuid_generate_v4,pgp_sym_encrypt,pgp_pub_encrypt,current_query,
bernoulli,system,system_rows,system_time,pg_sleep,pg_is_in_recovery,pg_partition_tree,
pg_relation_size,pg_table_size,pg_indexes_size,pg_total_relation_size,pg_database_size,
pg_tablespace_size,pg_partition_ancestors,time_bucket_gapfill,locf,interpolate
"""
# These are not volatile, or not there, and run text as SQL, in which a name could hide.
RUN_TEXT = "crosstab,crosstab_hash,connectby_text,connectby_text_serial,xpath_table"
ALWAYS = frozenset(
    ["crosstab", "connectby", "xpath_table", "dblink", "dblink_exec", "dblink_connect"]
)
# What the server keeps from ordinary roles is denied to all.
DENIED = f"""
SELECT DISTINCT lower(proname) FROM pg_proc JOIN pg_language ON prolang = pg_language.oid
WHERE lanname IN ('c', 'internal') AND (provolatile = 'v' AND proname <> ALL ('{{{HARMLESS}}}')
OR prosrc = ANY ('{{{RUN_TEXT}}}'))
OR pronamespace = 'pg_catalog'::regnamespace AND NOT has_function_privilege('public', pg_proc.oid, 'EXECUTE')
"""
PRIVILEGED = """
SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
AND relkind IN ('r', 'v') AND NOT has_table_privilege('public', oid, 'SELECT')
AND has_table_privilege(oid, 'SELECT')
"""
TABLES = """
SELECT lower(relname) FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'p', 'f')
AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_|^information_schema$')
"""
NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<number>-?\d+(?:\.\d+)?(?:e[+-]\d+)?)')
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


class Padded(Loader):
    """CHAR(n): the blanks at its end mean nothing to the server."""

    def load(self, data):
        return bytes(data).decode().rstrip(" ")


class Numbers(Loader):
    """Text with numbers in it, {1.50,2.0}: equal ones are written alike."""

    def load(self, data):
        return NUMBER.sub(
            lambda found: str(in_text(number(found[0]))) if found["number"] else found[0],
            bytes(data).decode(),
        )


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
    adapters.register_loader("bpchar", Padded)
    for name in ("numeric", "float4", "float8"):
        adapters.register_loader(types[name].array_oid, Numbers)
    for name in ("numrange", "nummultirange", "jsonb"):
        adapters.register_loader(name, Numbers)
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
        self.privileged = {name for (name,) in self.connection.execute(PRIVILEGED)}
        self.denied = ALWAYS.union(name for (name,) in self.connection.execute(DENIED))
        said = self.connection.info.parameter_status
        self.rules = lexer("postgresql", said("standard_conforming_strings") == "off")
        self.superuser = "a superuser" if said("is_superuser") == "on" else ""

    def check_names(self, found: list) -> None:
        for before, token in pairwise([None, *found]):
            if token.kind == "broken" and token.text[:2].lower() == "u&":
                raise Fault("forbidden", "a name in Unicode escapes")
            alias = before and before.kind == "word" and before.text == "as"
            if token.kind in NAMES and token.text in self.privileged and not alias:
                raise Fault("forbidden", f"not allowed: {token.text}")

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
