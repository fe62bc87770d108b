"""MySQL and MariaDB through PyMySQL, for `_sql/engines`.

| guard | stops |
|---|---|
| READ ONLY transactions for the session, rolled back | writes, DDL, sequences, FOR UPDATE |
| a connection without multiple statements | a second statement |
| first word (`Engine.check`) | SET, KILL, HANDLER, CALL, LOAD: a read-only transaction lets these run |
| max_execution_time (MySQL), max_statement_time (MariaDB) | loops, SLEEP, BENCHMARK |
| no role that may more than read, unless `allow_superuser` | files, other databases' passwords |
| `denied`, `check_names` | LOAD_FILE, locks by name, INTO OUTFILE, the schema mysql |
| `check_comments` | comments that run, hints that lift the limit |

User variables are allowed; a query that names one gets a connection that nobody uses after it.
The role should be one that may only SELECT: other databases are its matter.
A password that is not in the URL is $MYSQL_PWD or that of ~/.my.cnf.
Not covered: stored functions of the database's own.
"""

import os
from itertools import pairwise
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.constants import FIELD_TYPE
from pymysql.converters import encoders
from pymysql.cursors import SSCursor

from rewards._sql.engines import CHUNK_ROWS, CONNECT_S, NAMES, Engine, Fault, number
from rewards._sql.lex import lexer

PARAMETERS = ("unix_socket", "ssl_ca")
DENIED = frozenset(
    ["load_file", "get_lock", "release_lock", "release_all_locks", "sys_exec", "sys_eval"]
)
HINTS = ("max_execution_time", "max_statement_time", "set_var")
# Of MySQL's and MariaDB's many, those that no reader has. ALL PRIVILEGES ON *.* brings them.
PRIVILEGES = """
SELECT count(*) FROM information_schema.user_privileges
WHERE grantee = concat("'", replace(current_user(), '@', "'@'"), "'")
AND privilege_type IN ('SUPER', 'FILE', 'CREATE USER', 'SHUTDOWN')
"""
# Passwords are there, for who may look.
ROLES = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'mysql'"
TABLES = "SELECT lower(table_name) FROM information_schema.tables WHERE table_schema = database()"
CODES = {
    "syntax_error": (1064, 1149),
    "schema_error": (1046, 1049, 1051, 1052, 1054, 1109, 1128, 1146, 1305, 1318, 1370, 1582, 1583,
                     1584),
    # 1370 is what a role without EXECUTE hears of a function that does not exist
    "forbidden": (1044, 1142, 1143, 1227, 1290, 1345, 1792),
    "timeout": (1205, 1317, 1969, 3024),
    "memory": (1037, 1038, 1041),
    "limit": (1104, 1116, 1117, 1119, 1153, 1301, 1436, 3170),
    "": (1053, 1077, 1080, 1152, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 2014, 2055, 4031),
}  # fmt: skip
OUTCOMES = {code: outcome for outcome, codes in CODES.items() for code in codes}
# Any other type stays the text that the server sends.
CONVERTERS = {
    **encoders,
    FIELD_TYPE.DECIMAL: number,
    FIELD_TYPE.NEWDECIMAL: number,
    FIELD_TYPE.BIT: lambda data: int.from_bytes(data, "big"),
    **dict.fromkeys((FIELD_TYPE.FLOAT, FIELD_TYPE.DOUBLE), float),
    **dict.fromkeys(
        (FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG,
         FIELD_TYPE.INT24, FIELD_TYPE.YEAR),
        int,
    ),
}  # fmt: skip


class Database(Engine):
    errors = (pymysql.Error, OSError)
    denied = DENIED
    spent = False  # the session holds what a query left in it
    allowed_s = 0.0  # what the server has last been told

    def connect(self) -> None:
        url = urlsplit(self.url)
        more = dict(parse_qsl(url.query))
        if unknown := more.keys() - set(PARAMETERS):
            raise Fault(
                "db_missing", f"unknown {', '.join(unknown)}; known: {', '.join(PARAMETERS)}"
            )
        if not url.path.strip("/"):
            raise Fault("db_missing", "the URL names no database")
        self.connection = pymysql.connect(
            host=url.hostname or "localhost",
            port=url.port or 0,
            user=unquote(url.username) if url.username else None,
            password=unquote(url.password or "") or os.environ.get("MYSQL_PWD", ""),
            database=unquote(url.path[1:]),
            read_default_file="~/.my.cnf",
            charset="utf8mb4",
            conv=CONVERTERS,
            cursorclass=SSCursor,
            connect_timeout=CONNECT_S,
            read_timeout=CONNECT_S,  # for the handshake,
            init_command="SET SESSION TRANSACTION READ ONLY",
            **more,
        )
        self.connection._read_timeout = None  # and not for queries: the worker's alarm bounds them
        self.spent, self.allowed_s = False, 0.0
        self.mariadb = "mariadb" in self.connection.get_server_info().lower()
        with self.connection.cursor() as cursor:
            cursor.execute(TABLES)
            self.tables = {name for (name,) in cursor.fetchall()}
            cursor.execute(PRIVILEGES)
            self.superuser = "this role" if cursor.fetchall()[0][0] else ""
            cursor.execute("SELECT @@sql_mode")
            modes = cursor.fetchall()[0][0].split(",")
            cursor.execute(ROLES)
            self.sees_roles = bool(cursor.fetchall()[0][0])
        self.rules = lexer("mysql", "NO_BACKSLASH_ESCAPES" not in modes, "ANSI_QUOTES" in modes)

    def check_comments(self, comments: list[str]) -> None:
        for comment in map(str.lower, comments):
            hint = comment.startswith("/*+") and any(name in comment for name in HINTS)
            if hint or comment.startswith(("/*!", "/*m!")):
                raise Fault("forbidden", f"not allowed: {comment[:20]}")

    def check_names(self, found: list) -> None:
        for token, after in pairwise(found):
            if token.kind not in NAMES:
                continue
            file = token.text == "into" and after.text in ("outfile", "dumpfile")
            if file or (self.sees_roles and token.text == "mysql" and after.text == "."):
                raise Fault("forbidden", f"not allowed: {token.text} {after.text}")

    def start(self, sql: str) -> str:
        self.check(sql)
        if self.clock.timeout_s != self.allowed_s:
            self.allowed_s = self.clock.timeout_s
            limit = f"max_statement_time = {self.allowed_s}"
            if not self.mariadb:
                limit = f"max_execution_time = {max(1, int(self.allowed_s * 1e3))}"
            with self.connection.cursor() as cursor:
                cursor.execute(f"SET SESSION {limit}")
        self.spent = "@" in sql
        return sql

    def chunks(self, sql: str):
        cursor = self.connection.cursor()
        cursor.execute(sql)
        if cursor.description is None:
            raise Fault("not_select", "the statement gives no rows")
        while chunk := cursor.fetchmany(CHUNK_ROWS):
            yield chunk
        cursor.close()  # only now: to close it earlier is to read all that is left

    def rollback(self) -> None:
        if self.spent:
            self.close()
        else:
            self.connection.rollback()

    def outcome_of(self, error: Exception) -> str:
        code = error.args[0] if error.args else 0
        if isinstance(error, pymysql.InterfaceError | OSError) or not isinstance(code, int):
            return ""
        return OUTCOMES.get(code, "runtime_error")
