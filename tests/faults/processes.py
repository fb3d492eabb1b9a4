"""The servers and workers of a row, and what is done to them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Literal

import psutil
from redis.connection import Connection

from taskapp.redis.link import Link
from tests.support import Process, RedisServer, clean_environment, eventually

Pool = Literal["default", "prefork", "threads", "solo"]
"""``default``: what ``celery -A taskapp worker`` runs when no pool is typed."""


class FaultyRedis(RedisServer):
    """A server whose options and environment a row chooses; ``start`` applies them again."""

    def __init__(self, binary: str, directory: Path, variables: Mapping[str, str]) -> None:
        self.options: dict[str, str] = {"appendfsync": "everysec", "auto-aof-rewrite-percentage": "0"}
        self.variables = dict(variables)
        super().__init__(binary, directory)

    def start(self) -> None:
        """Start the server, or start it again, and return when it answers."""
        options = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        argv = [
            self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--appendonly", "yes", "--save", "", *options,
        ]  # fmt: skip
        self.process = Process(argv, self.directory / "redis.log", clean_environment(**self.variables))
        eventually(self.answers)

    @contextmanager
    def link(self) -> Iterator[Link]:
        """Lend a connection as the engine's own parts use it."""
        link = Link(partial(Connection, port=self.port, protocol=2, socket_timeout=30))
        try:
            yield link
        finally:
            link.close()

    @property
    def log_of_changes(self) -> Path:
        """The append-only file that is being written."""
        # Redis 6.2 has a single file.
        return max(self.directory.glob("appendonlydir/*.incr.aof"), default=self.directory / "appendonly.aof")


@dataclass
class Worker:
    """One life of one worker process."""

    name: str
    process: Process

    @property
    def ready(self) -> bool:
        """Whether it takes tasks."""
        return not self.exited and " ready." in self.process.output()

    @property
    def exited(self) -> bool:
        """Whether it has ended, by itself or killed."""
        return self.process.returncode is not None

    def freeze(self) -> float:
        """SIGSTOP to the process and its children; return when, by CLOCK_MONOTONIC."""
        frozen_at = time.monotonic()
        self._signal_all(signal.SIGSTOP)
        return frozen_at

    def thaw(self) -> float:
        """SIGCONT to the process and its children; return when, by CLOCK_MONOTONIC."""
        thawed_at = time.monotonic()
        self._signal_all(signal.SIGCONT)
        return thawed_at

    def _signal_all(self, number: int) -> None:
        main = psutil.Process(self.process.pid)
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def terminate(self) -> float:
        """SIGTERM to the main process alone, as an init system sends it; return when, by CLOCK_MONOTONIC."""
        terminated_at = time.monotonic()
        psutil.Process(self.process.pid).terminate()
        return terminated_at

    def exited_within(self, seconds: float) -> bool:
        """Return whether it ends within ``seconds`` from now."""
        with suppress(TimeoutExpired):
            self.process.wait(seconds)
        return self.exited

    @property
    def children(self) -> set[int]:
        """The ids of its child processes."""
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def settled(self) -> bool:
        """Return whether it has reached a state: takes tasks, or has ended."""
        return self.ready or self.exited

    @property
    def resident_bytes(self) -> int:
        """Memory of the main process, which is the one that holds messages."""
        return int(psutil.Process(self.process.pid).memory_info().rss)
