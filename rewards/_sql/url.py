"""Databases by URL: which driver they need, what identifies them, what of a URL may be shown.

    postgresql://user@host:5432/name   PostgreSQL; all that libpq takes (sockets, sslmode, service)
    mysql://user@host:3306/name        MySQL, MariaDB (mariadb://, too); ?unix_socket=, ?ssl_ca=
    duckdb:///folder/file.duckdb       a DuckDB file, by its absolute path

Everything else is the path of a SQLite file.
"""

import os
import re
from functools import lru_cache
from importlib.util import find_spec
from urllib.parse import unquote, unquote_plus

DRIVERS = {
    "postgresql": "psycopg",
    "postgres": "psycopg",
    "mysql": "pymysql",
    "mariadb": "pymysql",
    "duckdb": "duckdb",
}
PACKAGES = {"psycopg": "'psycopg[binary]'"}  # where pip knows the driver by another name
JOURNAL = bytes.fromhex("d9d505f920a163d7")  # how one begins that was not ended
LOG = bytes.fromhex("377f06")  # and how a write-ahead log does
MOST_SAID = 400  # of an error: some bring a traceback, or the query
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
# Up to the last @, so that a password with @ or / in it, which it should not have, is hidden too.
_PASSWORD = re.compile(r"(?P<before>://[^:/?#@]*:)(?P<secret>.*)(?=@)", re.S)
_PARAMETER = re.compile(r"(?P<before>[?&](?:ssl)?(?:password|passwd|pwd)=)(?P<secret>[^&#]*)", re.I)


def scheme_of(path: str) -> str:
    """postgresql, ...; empty for a file."""
    found = _URL.match(path)
    return found[1].lower() if found else ""


@lru_cache(maxsize=4096)
def driver_of(paths: str | tuple[str, ...]) -> str:
    """The module that the workers need for these databases, empty for SQLite alone.

    ValueError if it is not installed.
    """
    needed = ""
    for path in (paths,) if isinstance(paths, str) else paths:
        scheme = scheme_of(path)
        driver = DRIVERS.get(scheme, "")
        if driver and find_spec(driver) is None:
            package = PACKAGES.get(driver, driver)
            raise ValueError(
                f"{scheme}:// needs {driver}, which is not installed: pip install {package}"
            )
        needed = needed or driver
    return needed


def file_of(path: str) -> str | None:
    """The database's file; None where there is none to look at: on a server."""
    scheme = scheme_of(path)
    if scheme == "duckdb":
        return unquote(path[len("duckdb://") :])
    return None if scheme in DRIVERS else path


def changes_beside(path: str) -> str:
    """Why the SQLite file alone is not the database: its write-ahead log or hot journal; else empty.

    A log without a frame of its own, and a journal that was ended, hold nothing.
    """
    real = os.path.realpath(path)  # as SQLite does
    data = _first_bytes(f"{real}-wal", 56)
    # The salts of the log and of its first frame.
    if data[:3] == LOG and len(data) == 56 and data[16:24] == data[40:48]:
        return f"{real}-wal holds changes that are not in the file: PRAGMA wal_checkpoint(TRUNCATE)"
    if _first_bytes(f"{real}-journal", 8) == JOURNAL:
        return (
            f"{real}-journal holds changes to undo, as SQLite does when it opens the file to write"
        )
    return ""


def _first_bytes(path: str, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError:
        return b""


def why_missing(path: str) -> str:
    """Why there is nothing at a path that has no identity."""
    scheme = scheme_of(path)
    if scheme and scheme not in DRIVERS:
        return f"no database is known as {scheme}://, only {', '.join(DRIVERS)} and SQLite's files"
    if scheme == "duckdb" and not file_of(path).startswith("/"):
        return f"duckdb:// takes an absolute path, duckdb:///folder/file.duckdb: {path}"
    why = changes_beside(path) if not scheme and os.path.isfile(path) else ""
    return why or f"no database file: {shown(path)}"


def shown(path: str) -> str:
    """The path without a password."""
    if not scheme_of(path):
        return path
    return _PARAMETER.sub(r"\g<before>***", _PASSWORD.sub(r"\g<before>***", path))


def hidden(text: str, url: str) -> str:
    """An error's text, in one line, without the URL's passwords, however they are written.

    Nor a part of one that stands between signs which a URL should not have had unquoted.
    """
    found = [match["secret"] for rule in (_PASSWORD, _PARAMETER) for match in rule.finditer(url)]
    parts = [part for secret in found for part in re.split("[@:/?#&=]", secret) if len(part) > 2]
    secrets = {*found, *(secret.split("@")[0] for secret in found), *parts}
    secrets |= set(map(unquote, secrets)) | set(map(unquote_plus, secrets))
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split())[:MOST_SAID]
