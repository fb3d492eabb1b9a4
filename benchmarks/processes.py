"""Processes of one measurement: each in its own process group, with CPU and memory readings, reliably ended. Linux."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

CLOCK_OF_PROCESS = 2
"""CPUCLOCK_SCHED of linux/posix-timers.h: user and system time of all threads, in nanoseconds."""
PATIENCE_SECONDS = 15.0


class BrokenOff(Exception):
    """A measurement failed; the message says why."""


def cpu_seconds_of(pid: int) -> float:
    """Return the CPU time of the process in seconds, to the nanosecond; 0 if it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | CLOCK_OF_PROCESS)
    except OSError:
        return 0.0


class Process:
    """A program and its children, with their output in a file."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], log: Path, *, user: str | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                argv, env=environment, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, user=user, group=user,
            )  # fmt: skip
        self._root = psutil.Process(self._popen.pid)

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def last_words(self) -> str:
        """Return the last non-empty line of its output."""
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def all(self) -> list[psutil.Process]:
        """Return the process and all its living descendants."""
        with suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """Return the CPU time in seconds of the process and all its descendants, past ones included.

        For children that have ended it is accurate only to a hundredth of a second.
        """
        total = 0.0
        for process in self.all():
            with suppress(psutil.NoSuchProcess):
                ended = process.cpu_times()
                total += cpu_seconds_of(process.pid) + ended.children_user + ended.children_system
        return total

    def peak_mib(self) -> float:
        """Return the sum of the peak memory of the living processes in MiB; shared memory counts once for each."""
        peaks = 0.0
        for process in self.all():
            with suppress(OSError, StopIteration):
                lines = Path(f"/proc/{process.pid}/status").read_text().split("\n")
                peaks += int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1_024
        return peaks

    def end(self) -> None:
        """Ask it to stop, then kill its whole group."""
        if not self.has_ended:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(PATIENCE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill its whole group at once, including members that outlive its first process."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
