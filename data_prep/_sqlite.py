"""Read-only look at SQLite databases: run a reference answer, read the schema.

A reference answer comes with its data set: a read-only connection, an allow-list (`VACUUM INTO` and `ATTACH`
make files on a read-only one, too) and a time limit are enough. Answers of a model are another
matter (the reward's).
"""

import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

TIMEOUT_S = 30.0
ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


def connect(file: Path) -> sqlite3.Connection:
    """A connection that can only read; bytes that aren't UTF-8 come as replacement characters."""
    conn = sqlite3.connect(f"file:{quote(str(file))}?mode=ro&immutable=1", uri=True)
    conn.text_factory = lambda raw: raw.decode("utf-8", "replace")
    conn.set_authorizer(
        lambda action, *_: sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY
    )
    return conn


def execute(conn: sqlite3.Connection, sql: str, timeout_s: float = TIMEOUT_S) -> int:
    """Run a query to its end and return the number of its rows (they aren't kept).

    Raises sqlite3.Error, also for a statement that is not a query; TimeoutError past `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    conn.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        cursor = conn.execute(sql)
        if cursor.description is None:
            raise sqlite3.ProgrammingError("not a query")
        return sum(1 for _ in cursor)
    except sqlite3.OperationalError as error:
        if time.monotonic() > end:
            raise TimeoutError(f"still running after {timeout_s:g} s") from error
        raise
    except sqlite3.Warning as error:  # two statements, before Python 3.11
        raise sqlite3.ProgrammingError(str(error)) from error
    finally:
        conn.set_progress_handler(None, 0)


def schema(conn: sqlite3.Connection, sample_rows: int = 0) -> str:
    """The CREATE TABLE statements, each followed by `sample_rows` rows as comments."""
    query = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%'"
    )
    parts = []
    for name, ddl in conn.execute(query + " ESCAPE '\\' ORDER BY rowid").fetchall():
        parts.append(f"{ddl.strip()};")
        if sample_rows:
            quoted = '"' + name.replace('"', '""') + '"'
            cursor = conn.execute(f"SELECT * FROM {quoted} LIMIT {sample_rows}")
            header = [column[0] for column in cursor.description]
            for row in [header, *cursor]:
                parts.append("-- " + " | ".join(_short(value) for value in row))
    return "\n".join(parts)


def _short(value: object) -> str:
    """A value on one line, of at most 60 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
