"""Real SQL servers for tests, each on a port of its own with all its files in a directory of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import Process, clean_environment, eventually, free_port

POSTGRES = next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None)
MARIADB = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
AS_POSTGRES = ("setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups")
PASSWORD = "hunter2"
STILL_THERE = "is still in use"


class Database(ABC):
    """A server; ``start`` after ``kill`` keeps port and data."""

    package = ""
    """Debian's, for who lacks it."""

    def __init__(self) -> None:
        # Not below pytest's directory, which other users may not enter.
        self.directory = Path(tempfile.mkdtemp(prefix="taskapp-sql-"))
        self.port = free_port()
        self.prepare()
        self.start()

    @staticmethod
    @abstractmethod
    def is_installed() -> bool: ...

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    def start(self) -> None:
        self.process = Process(self.command(), self.directory / "server.log", clean_environment())
        eventually(self.answers, within_seconds=60)

    def answers(self) -> bool:
        if self.process.returncode is not None:
            # PostgreSQL does not start while a child of the one that was killed lives.
            assert STILL_THERE in self.process.output(), self.process.output()
            self.process.start()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            return bool(self.greets(connection))
        return False

    @abstractmethod
    def greets(self, connection: socket.socket) -> bytes: ...

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class PostgreSQL(Database):
    package = "postgresql"

    @staticmethod
    def is_installed() -> bool:
        return POSTGRES is not None

    @property
    def url(self) -> str:
        return f"postgresql://taskapp:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def _as_somebody(self) -> list[str]:
        return list(AS_POSTGRES) if os.getuid() == 0 else []

    def prepare(self) -> None:
        password = self.directory / "password"
        password.write_text(PASSWORD)
        if os.getuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
            shutil.chown(password, "postgres", "postgres")
        subprocess.run(
            [
                *self._as_somebody(), str(POSTGRES / "initdb"), "-D", str(self.directory / "data"), "-U", "taskapp",
                "--auth=scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8",
            ],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip

    def command(self) -> list[str]:
        return [
            *self._as_somebody(), str(POSTGRES / "postgres"), "-D", str(self.directory / "data"),
            "-p", str(self.port), "-h", "127.0.0.1", "-k", "",
        ]  # fmt: skip

    def greets(self, connection: socket.socket) -> bytes:
        # It answers a login with a question; while it is still starting up, with an error.
        login = b"\0\x03\0\0user\0taskapp\0database\0postgres\0\0"
        connection.sendall((len(login) + 4).to_bytes(4, "big") + login)
        return connection.recv(1).replace(b"E", b"")


class MariaDB(Database):
    package = "mariadb-server"

    @staticmethod
    def is_installed() -> bool:
        return MARIADB is not None

    @property
    def url(self) -> str:
        return f"mysql://taskapp:{PASSWORD}@127.0.0.1:{self.port}/taskapp"

    def prepare(self) -> None:
        (self.directory / "init.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS taskapp;\n"
            f"CREATE USER IF NOT EXISTS 'taskapp'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON taskapp.* TO 'taskapp'@'127.0.0.1';\n"
            # Django's test runner creates it.
            "GRANT ALL ON `test\\_taskapp`.* TO 'taskapp'@'127.0.0.1';\n"
        )
        install = [
            "mariadb-install-db", "--no-defaults", f"--datadir={self.directory / 'data'}", "--skip-test-db",
            "--auth-root-authentication-method=normal", f"--user={self._user()}",
        ]  # fmt: skip
        subprocess.run(install, check=True, capture_output=True, cwd="/")

    def _user(self) -> str:
        return "root" if os.getuid() == 0 else os.environ.get("USER", "")

    def command(self) -> list[str]:
        return [
            str(MARIADB), "--no-defaults", f"--user={self._user()}", f"--datadir={self.directory / 'data'}",
            f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}", f"--init-file={self.directory / 'init.sql'}",
            "--skip-name-resolve", "--innodb-buffer-pool-size=64M",
        ]  # fmt: skip

    def greets(self, connection: socket.socket) -> bytes:
        return connection.recv(1)


DATABASES = {"postgresql": PostgreSQL, "mariadb": MariaDB}


@contextmanager
def running(name: str) -> Iterator[Database]:
    """A server for a while; the test is skipped where it is not installed."""
    kind = DATABASES[name]
    if not kind.is_installed():
        pytest.skip(f"no {name} server (Debian: apt install {kind.package})")
    server = kind()
    try:
        yield server
    finally:
        server.close()
