"""Runs a set of processes together: prefixes their output, restarts dead ones and stops them all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from taskapp.background import start_thread

LONGEST_PAUSE_SECONDS = 30.0
STABLE_AFTER_SECONDS = 30.0
"""A process that has run for this long is restarted at once when it dies."""


@dataclass(frozen=True)
class Program:
    """A program to start: ``argv`` under a ``name``; ``ready_line`` is text in its output that shows it is ready."""

    name: str
    argv: Sequence[str]
    ready_line: str = ""


OnLine = Callable[[str, str], None]
"""Called with a program's name and a line of its output, or a line about the program."""


def celery_program(name: str, *arguments: str, ready_line: str = "", app: str = "taskapp") -> Program:
    """Return the program ``celery -A APP …`` in this interpreter."""
    return Program(name, (sys.executable, "-m", "celery", "-A", app, *arguments), ready_line)


def python_program(name: str, *arguments: str, ready_line: str = "") -> Program:
    """Return the program ``python …`` in this interpreter."""
    return Program(name, (sys.executable, *arguments), ready_line)


@dataclass
class _Running:
    program: Program
    popen: subprocess.Popen[str]
    reader: threading.Thread
    started_at: float
    ready: threading.Event
    deaths: int = 0
    start_again_at: float | None = None


@dataclass
class Supervisor:
    """Starts programs, passes on their output, restarts dead ones and stops them all.

    Each program runs in its own process group, so that Ctrl-C reaches only this process, which decides the order of
    stopping. Not thread-safe.
    """

    programs: list[Program]
    on_line: OnLine
    env: Mapping[str, str]
    cwd: str | None = None
    _running: dict[str, _Running] = field(default_factory=dict)

    def start(self) -> None:
        """Start every program that is not running."""
        for program in self.programs:
            if program.name not in self._running:
                self._running[program.name] = self._spawn(program)

    def add(self, program: Program) -> None:
        """Add a program and start it."""
        self.programs.append(program)
        self.start()

    def pids(self) -> dict[str, int]:
        """Return process ids by name."""
        return {name: one.popen.pid for name, one in self._running.items()}

    def not_ready(self) -> list[str]:
        """Return the names of programs that have not printed their ready line."""
        return [name for name, one in self._running.items() if not one.ready.is_set()]

    def dead(self) -> dict[str, int]:
        """Return the exit codes of ended programs by name; negative for a signal."""
        return {name: code for name, one in self._running.items() if (code := one.popen.poll()) is not None}

    def revive(self) -> None:
        """Restart dead programs, each after a pause that doubles while it keeps dying."""
        now = time.monotonic()
        for name, code in self.dead().items():
            one = self._running[name]
            if one.start_again_at is None:
                if now - one.started_at > STABLE_AFTER_SECONDS:
                    one.deaths = 0
                pause_seconds = 0.0 if one.deaths == 0 else min(2.0 ** (one.deaths - 1), LONGEST_PAUSE_SECONDS)
                one.start_again_at = now + pause_seconds
                self.on_line(name, f"ended with {_how(code)}; restarting it in {pause_seconds:g} s")
            if now >= one.start_again_at:
                self._running[name] = self._spawn(one.program, deaths=one.deaths + 1)

    def restart(self, names: Sequence[str], grace_seconds: float = 10.0) -> None:
        """Stop the programs in ``names`` and start them again."""
        self.stop(grace_seconds, names)
        self.start()

    def stop(self, grace_seconds: float = 10.0, names: Sequence[str] | None = None) -> None:
        """Send SIGTERM to all (or ``names``), last started first, and SIGKILL to those left after ``grace_seconds``."""
        stopping = [one for name, one in reversed(self._running.items()) if names is None or name in names]
        for one in stopping:
            _signal_group(one.popen, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        for one in stopping:
            try:
                one.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.on_line(one.program.name, f"did not stop within {grace_seconds:g} s; killed")
            # Children of a program may outlive it in its group.
            _signal_group(one.popen, signal.SIGKILL)
            one.popen.wait()
            one.reader.join(1.0)
            if one.popen.stdout is not None and not one.reader.is_alive():
                one.popen.stdout.close()
            del self._running[one.program.name]

    def _spawn(self, program: Program, deaths: int = 0) -> _Running:
        popen = subprocess.Popen(
            list(program.argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**self.env, "PYTHONUNBUFFERED": "1"},
            cwd=self.cwd,
            start_new_session=True,
        )
        ready = threading.Event()
        reader = start_thread(self._read, program, popen, ready, name=f"read-{program.name}")
        return _Running(program, popen, reader, time.monotonic(), ready, deaths)

    def _read(self, program: Program, popen: subprocess.Popen[str], ready: threading.Event) -> None:
        if not program.ready_line:
            ready.set()
        for line in popen.stdout or ():
            if program.ready_line in line:
                ready.set()
            self.on_line(program.name, line.rstrip())


def _signal_group(popen: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if number is signal.SIGTERM:
            # Only the group leader: a Celery worker stops its own children in order.
            popen.send_signal(number)
        else:
            os.killpg(popen.pid, number)


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def free_port(wanted: int = 0) -> int:
    """Return ``wanted`` if nothing listens on it on loopback, otherwise a port that is free now.

    Raises:
        OSError: No port is free.
    """
    for port in (wanted, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


_interrupted = threading.Event()


def stop_on_signals() -> None:
    """Make the first Ctrl-C, SIGTERM or closed terminal raise ``KeyboardInterrupt`` here, so that cleanup runs.

    Later signals are ignored, because they would interrupt the cleanup and leave processes behind.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if not _interrupted.is_set():
            _interrupted.set()
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def check_interrupted() -> None:
    """Raise the ``KeyboardInterrupt`` of a signal that arrived where Python drops exceptions, such as in a finalizer.

    Called by every loop that waits for the user or for work.
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt


def sleep_unless_interrupted(seconds: float) -> None:
    """Wait for ``seconds``; raise ``KeyboardInterrupt`` as soon as ``check_interrupted`` would."""
    if _interrupted.wait(seconds):
        raise KeyboardInterrupt
