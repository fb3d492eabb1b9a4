"""The stores: a Redis or a PostgreSQL on a free loopback port, used by nobody else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Protocol

import redis

from benchmarks.processes import BrokenOff, Process

START_SECONDS = 20.0


class Store(Protocol):
    """What a measurement needs from a store."""

    url: str
    version: str

    def empty(self) -> None:
        """Delete all its data."""

    def await_ready(self) -> None:
        """Wait until it answers.

        Raises:
            BrokenOff: It does not.
        """

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server in seconds."""

    def close(self) -> None:
        """Stop the server."""


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name: str) -> str:
    """Return the path of a server's executable.

    Raises:
        BrokenOff: It is not there.
    """
    path = shutil.which(name)
    if path is None:
        for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
            if (folder / name).exists():
                return str(folder / name)
        raise BrokenOff(f"there is no {name!r} on PATH; install it (Debian: apt install redis-server postgresql)")
    return path


class RedisStore:
    """A ``redis-server`` that writes nothing to disk."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        argv = [
            program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(directory),
        ]  # fmt: skip
        self._process = Process(argv, os.environ, directory / "redis.log")
        self.client = redis.Redis(port=port)
        self.version = "Redis"

    def await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.version = f"Redis {self.client.info('server')['redis_version']}"
                return
            except redis.ConnectionError:
                if self._process.has_ended or time.monotonic() > deadline:
                    raise BrokenOff(f"redis-server did not start: {self._process.last_words()}") from None
                time.sleep(0.02)

    def empty(self) -> None:
        self.client.flushall()
        self.client.script_flush()

    def cpu_seconds(self) -> float:
        return self._process.cpu_seconds()

    def close(self) -> None:
        self.client.close()
        self._process.kill()


class PostgresStore:
    """A PostgreSQL cluster with default settings. It refuses to run as root, so root starts it as ``postgres``."""

    def __init__(self, directory: Path) -> None:
        self._user = "postgres" if os.geteuid() == 0 else None
        self._directory, port = directory / "postgres", free_port()
        self._directory.mkdir()
        if self._user:
            for folder in (directory.parent, directory):
                folder.chmod(0o755)
            shutil.chown(self._directory, self._user)
        data = self._directory / "data"
        self._run("initdb", "-D", str(data), "-U", "bench", "-A", "trust", "--no-instructions")
        argv = [program("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(self._directory)]
        log = self._directory / "postgres.log"
        self._process = Process(argv, os.environ, log, user=self._user)
        self._server = f"postgresql://bench@127.0.0.1:{port}"
        self.url = f"{self._server}/bench"
        self.version = "PostgreSQL"

    def _run(self, name: str, *arguments: str) -> str:
        argv = [program(name), *arguments]
        done = subprocess.run(
            argv, user=self._user, group=self._user, cwd=self._directory, capture_output=True, text=True
        )
        if done.returncode:
            raise BrokenOff(f"{name} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def _query(self, statement: str) -> str:
        return self._run("psql", "-qAt", "-d", f"{self._server}/postgres", "-c", statement)

    def await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.version = "PostgreSQL " + self._query("SHOW server_version").split()[0]
                return
            except BrokenOff:
                if self._process.has_ended or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def empty(self) -> None:
        self._query("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        self._query("CREATE DATABASE bench")

    def cpu_seconds(self) -> float:
        return self._process.cpu_seconds()

    def close(self) -> None:
        self._process.end()


STORES: dict[str, type[RedisStore] | type[PostgresStore]] = {"redis": RedisStore, "postgres": PostgresStore}
