"""One measurement's store, workers and client."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.environments import python_of
from benchmarks.frameworks import Variant
from benchmarks.processes import BrokenOff, Process, cpu_seconds_of
from benchmarks.servers import Store

ROOT = Path(__file__).parent.parent
CONNECT_SECONDS = 30.0
IDLE_SECONDS, IDLE_CORES = 60.0, 0.1
ANSWER_SECONDS = 150.0
"""Maximum duration of one call of the client; each workload stays below it."""


class Client:
    """The other end of ``benchmarks.client``."""

    def __init__(self, python: Path, framework: str, environment: dict[str, str], log: Path) -> None:
        self._log = log.open("ab")
        self._popen = subprocess.Popen(
            [str(python), "-m", "benchmarks.client", framework], env=environment, cwd=log.parent,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip

    def await_connected(self) -> None:
        """Wait until it can be called.

        Raises:
            BrokenOff: It could not connect.
        """
        self._read(CONNECT_SECONDS)

    def __call__(self, what: str, *, answer_seconds: float = ANSWER_SECONDS, **keywords: Any) -> dict[str, Any]:
        """Call ``what`` in the client and return its answer.

        Raises:
            BrokenOff: It failed, or took longer than ``answer_seconds``.
        """
        print(json.dumps([what, keywords]), file=self._popen.stdin, flush=True)
        return self._read(answer_seconds)

    def _read(self, within_seconds: float) -> dict[str, Any]:
        if not select.select([self._popen.stdout], [], [], within_seconds)[0]:
            raise BrokenOff(f"the client took longer than {within_seconds:.0f} s")
        line = self._popen.stdout.readline()
        if not line:
            raise BrokenOff(f"the client ended; see {self._log.name!r}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise BrokenOff(reply["error"])
        return reply

    def cpu_seconds(self) -> float:
        return cpu_seconds_of(self._popen.pid)

    def close(self) -> None:
        self._popen.kill()
        self._popen.communicate()
        self._log.close()


class Workers:
    """The worker processes of one measurement."""

    def __init__(self) -> None:
        self._processes: list[Process] = []

    def add(self, process: Process) -> None:
        self._processes.append(process)

    def cpu_seconds(self) -> float:
        """Return the CPU time that all of them have used, in seconds."""
        return sum(process.cpu_seconds() for process in self._processes)

    def peak_mib(self) -> float:
        return sum(process.peak_mib() for process in self._processes)

    def await_idle(self) -> None:
        """Wait until all of them are idle: started, connected, nothing to do."""
        deadline, used = time.monotonic() + IDLE_SECONDS, self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(1.0)
            before, used = used, self.cpu_seconds()
            if used - before < IDLE_CORES * len(self._processes):
                return
        raise BrokenOff(f"the workers were still busy after {IDLE_SECONDS:.0f} s without tasks")

    def require_alive(self) -> None:
        """Raise ``BrokenOff`` if one has ended."""
        for process in self._processes:
            if process.has_ended:
                raise BrokenOff(f"a worker ended: {process.last_words()}")

    def end(self) -> None:
        for process in self._processes:
            process.end()


class Bench:
    """One variant on one store; the store is empty when this is made."""

    def __init__(self, variant: Variant, store: Store, directory: Path) -> None:
        self.variant, self.store, self._directory = variant, store, directory
        self._python = python_of(variant.framework)
        store.empty()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Start a client and connect it."""
        client = Client(self._python, self.variant.framework, self._environment(1), self._directory / "client.log")
        try:
            client.await_connected()
            yield client
        finally:
            client.close()

    @contextmanager
    def workers(self, *, slots: int | None = None, count: int = 1) -> Iterator[Workers]:
        """Start ``count`` workers with ``slots`` slots each; they may not have connected yet."""
        slots = slots or self.variant.slots
        workers = Workers()
        try:
            for number in range(count):
                workers.add(self._start(self.variant.command, slots, number))
            yield workers
        finally:
            workers.end()

    @contextmanager
    def scheduler(self) -> Iterator[None]:
        """Start the program that delayed tasks need next to workers, if any."""
        process = self._start(self.variant.scheduler, 1, 0) if self.variant.scheduler else None
        try:
            yield
        finally:
            if process:
                process.end()

    @contextmanager
    def beat(self, number: int = 0) -> Iterator[Process]:
        """Start the program that sends timed jobs; it may not have connected yet."""
        process = self._start(self.variant.beat, 1, number)
        try:
            yield process
        finally:
            process.end()

    def _start(self, command: str, slots: int, number: int) -> Process:
        argv = self.variant.argv(command, self._python, slots, number)
        return Process(argv, self._environment(slots), self._directory / "workers.log")

    def _environment(self, slots: int) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKAPP_", "CELERY_"))}
        paths = [str(ROOT), str(self._directory)]
        return {
            **kept, "PYTHONPATH": os.pathsep.join(paths), "BENCH_STORE_URL": self.store.url, "BENCH_SLOTS": str(slots),
            **{name: value.format(url=self.store.url, slots=slots, directory=self._directory)
               for name, value in self.variant.environment.items()},
        }  # fmt: skip


@contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for the logs and data of one measurement, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="taskapp-bench-") as name:
        yield Path(name)
