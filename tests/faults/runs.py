"""Reads the log of executions and answers who ran, when, where and how often."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Run:
    """One run of one task, times by CLOCK_MONOTONIC; ``ended_at`` is ``None`` while it runs or if it died."""

    worker: str
    pid: int
    retries: int
    started_at: float
    ended_at: float | None = None


class Runs:
    """All runs so far, by task id. The log is read on, never twice."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.log.touch()
        self.by_id: defaultdict[str, list[Run]] = defaultdict(list)
        self._ended: set[str] = set()
        self._read_bytes = 0

    def refresh(self) -> None:
        """Take in what was written since the last call."""
        with self.log.open("rb") as log:
            log.seek(self._read_bytes)
            news = log.read()
        whole, newline, _rest = news.rpartition(b"\n")
        self._read_bytes += len(whole) + len(newline)
        for line in whole.decode().splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        task_id, what, pid, at, worker, retries = line.split(" ")
        if what == "start":
            self.by_id[task_id].append(Run(worker, int(pid), int(retries), float(at)))
            return
        for run in self.by_id[task_id]:
            if run.pid == int(pid) and run.retries == int(retries) and run.ended_at is None:
                run.ended_at = float(at)
                self._ended.add(task_id)
                return

    def of(self, task_id: str) -> list[Run]:
        """Return the runs of ``task_id`` in the order they started."""
        return self.by_id.get(task_id, [])

    def started(self, task_ids: Iterable[str]) -> set[str]:
        """Return those of ``task_ids`` that were started."""
        return {task_id for task_id in task_ids if task_id in self.by_id}

    def ended(self, task_ids: Iterable[str]) -> set[str]:
        """Return those of ``task_ids`` that came to their end at least once."""
        return self._ended.intersection(task_ids)

    def repeated(self, task_ids: Iterable[str]) -> set[str]:
        """Return those of ``task_ids`` that were started more than once for the same retry."""
        return {task_id for task_id in task_ids if self._extra(task_id)}

    def extra_runs(self, task_ids: Iterable[str]) -> int:
        """Return how many runs of ``task_ids`` were one too many."""
        return sum(self._extra(task_id) for task_id in task_ids)

    def _extra(self, task_id: str) -> int:
        runs = self.of(task_id)
        return len(runs) - len({run.retries for run in runs})

    def running_on(self, worker: str, at: float) -> set[str]:
        """Return the ids that ``worker`` had started and not ended at the moment ``at``."""
        return {
            task_id
            for task_id, runs in self.by_id.items()
            for run in runs
            if run.worker == worker and run.started_at <= at and (run.ended_at is None or run.ended_at > at)
        }

    def await_started(self, task_ids: Iterable[str], within_seconds: float) -> bool:
        """Return whether all of ``task_ids`` were started ``within_seconds`` from now."""
        wanted = set(task_ids)
        return self._await(lambda: wanted <= self.by_id.keys(), within_seconds)

    def await_ended(self, task_ids: Iterable[str], within_seconds: float) -> bool:
        """Return whether all of ``task_ids`` ended ``within_seconds`` from now."""
        wanted = set(task_ids)
        return self._await(lambda: wanted <= self._ended, within_seconds)

    def _await(self, condition: Callable[[], bool], within_seconds: float) -> bool:
        deadline = time.monotonic() + within_seconds
        while True:
            self.refresh()
            if condition():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)

    def watch(self, seconds: float) -> None:
        """Read on for ``seconds``, so that a run too many shows."""
        self._await(lambda: False, seconds)
