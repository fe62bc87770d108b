"""Servers for the tests of reward=sql: PostgreSQL and MariaDB, each on a free port of this machine.

They are the ones that are installed; a test that needs one that is not there is skipped.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

SHOP = """
CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(20), price DECIMAL(6,2), stock INTEGER);
INSERT INTO item VALUES (1, 'nut', 0.5, 10), (2, 'bolt', 1.0, 5), (3, 'gear', 2.5, 5),
                        (4, 'gear', 2.5, 0), (5, NULL, 7.25, NULL);
"""
PASSWORD = "s3cr:t/@word"
QUOTED = "s3cr%3At%2F%40word"  # as it stands in a URL
START_S = 60


def find(name: str, *places: str) -> str | None:
    """A program, on the PATH or where Debian hides it."""
    found = [str(path) for place in places for path in sorted(Path("/").glob(place))]
    return shutil.which(name) or (found[-1] if found else None)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class Server:
    """A folder and, in it, a server that runs as an ordinary user."""

    owner = boss = ""  # the system's user that runs it; the role that may do everything

    def __init__(self):
        known = {user.pw_name for user in pwd.getpwall()}
        user = self.owner if self.owner in known else "nobody"
        self.identity = {"user": user, "extra_groups": []} if os.getuid() == 0 else {}
        self.folder = Path(tempfile.mkdtemp(prefix="sqlserver-"))
        if self.identity:
            shutil.chown(self.folder, user)
        self.port = free_port()
        self.process = None
        self.log = self.folder / "log"

    def do(self, *command) -> None:
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, **self.identity
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *command) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, **self.identity
            )

    def wait_until(self, connects) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                return connects().close()
            except Exception:
                text = self.log.read_text()
                assert self.process.poll() is None and time.monotonic() < end, text
                time.sleep(0.1)

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        if self.process:
            self.stop()  # killed, it would leave shared memory
        shutil.rmtree(self.folder, ignore_errors=True)


EXTENSIONS = {"pg_surgery", "pg_visibility", "tablefunc", "dblink"}  # with functions that do harm


class Postgres(Server):
    """Roles: admin (superuser), reader (may only read), locked (the same, with a password)."""

    owner, boss = "postgres", "admin"

    def set_up(self, initdb: str) -> None:
        self.bin = Path(initdb).parent
        self.data = self.folder / "data"
        self.do(initdb, "-D", self.data, "-U", "admin", "--auth=trust", "-E", "UTF8", "--no-sync")
        rules = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        (self.data / "pg_hba.conf").write_text(rules)
        self.run()
        import psycopg

        with psycopg.connect(self.url("admin", "postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        with psycopg.connect(self.url("admin")) as connection:
            connection.execute(SHOP)
            connection.execute(
                "CREATE ROLE reader LOGIN; CREATE ROLE locked LOGIN IN ROLE reader;"
                "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;"
                "CREATE SEQUENCE serial; GRANT ALL ON SEQUENCE serial TO reader;"
                f"ALTER ROLE locked PASSWORD '{PASSWORD}'"
            )
            # Before the reward connects: each of its connections asks once what functions there are.
            found = connection.execute("SELECT name FROM pg_available_extensions").fetchall()
            for name in EXTENSIONS.intersection(name for (name,) in found):
                connection.execute(f"CREATE EXTENSION {name}")

    def run(self) -> None:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "fsync": "off",
                   "unix_socket_directories": self.folder, "max_connections": 20,
                   "shared_buffers": "16MB"}  # fmt: skip
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self.start(self.bin / "postgres", "-D", self.data, *settings)
        import psycopg

        self.wait_until(lambda: psycopg.connect(self.url("admin", "postgres"), connect_timeout=5))

    def stop(self, how: int = signal.SIGINT) -> None:  # SIGTERM waits for those who are connected
        super().stop(how)

    def url(self, user: str = "reader", database: str = "shop") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"


class MariaDB(Server):
    """Users: root (everything), reader (may only read), locked (the same, with a password)."""

    owner, boss = "mysql", "root"

    def set_up(self, server: str) -> None:
        self.server = server
        self.data = self.folder / "data"
        install = shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
        self.do(install, "--no-defaults", f"--datadir={self.data}", "--skip-test-db",
                "--auth-root-authentication-method=normal")  # fmt: skip
        self.run()
        with self.connected("") as connection, connection.cursor() as cursor:
            for statement in (
                "CREATE DATABASE shop CHARACTER SET utf8mb4", "USE shop",
                *filter(str.strip, SHOP.split(";")),
                "CREATE SEQUENCE serial", "CREATE TABLE bits (b BIT(4))",
                "INSERT INTO bits VALUES (b'101')", "CREATE USER reader", "GRANT SELECT ON shop.* TO reader",
                f"CREATE USER locked IDENTIFIED BY '{PASSWORD}'",
                "GRANT SELECT ON shop.* TO locked", "DROP USER IF EXISTS ''@'localhost'",
                "DROP USER IF EXISTS ''@`%`", "GRANT ALL ON shop.serial TO reader",
            ):  # fmt: skip
                cursor.execute(statement)
            connection.commit()

    def run(self) -> None:
        self.start(self.server, "--no-defaults", f"--datadir={self.data}", f"--port={self.port}",
                   "--bind-address=127.0.0.1", f"--socket={self.folder}/socket",
                   f"--pid-file={self.folder}/pid", "--innodb-buffer-pool-size=16M",
                   "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve")  # fmt: skip
        self.wait_until(lambda: self.connected(""))

    def connected(self, database: str = "shop"):
        import pymysql

        return pymysql.connect(host="127.0.0.1", port=self.port, user="root", database=database)

    def url(self, user: str = "reader", database: str = "shop") -> str:
        return f"mysql://{user}@127.0.0.1:{self.port}/{database}"


def serve(kind, program: str | None, package: str):
    """A fixture's body: the server while the tests run."""
    if program is None:
        pytest.skip(f"no server found: apt-get install {package}")
    with contextlib.closing(kind()) as server:
        server.set_up(program)
        yield server


@pytest.fixture(scope="module")
def postgres():
    program = find("initdb", "usr/lib/postgresql/*/bin/initdb", "usr/pgsql-*/bin/initdb")
    yield from serve(Postgres, program, "postgresql")


@pytest.fixture(scope="module")
def mariadb():
    yield from serve(MariaDB, find("mariadbd", "usr/sbin/mariadbd"), "mariadb-server")


class Proxy:
    """Passes bytes on to a server until it is told to hold them, as a network may."""

    def __init__(self, port: int):
        self.target = ("127.0.0.1", port)
        self.flowing = threading.Event()
        self.flowing.set()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.server.accept()
                far = socket.create_connection(self.target)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.flowing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.flowing.set()
        self.server.close()
