"""Holding back STARTED: a task that ends at once needs no record that it began."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

AT_ONCE = 100
"""Records written under the lock at a time, so that tasks that end do not wait long for it."""


class StartedWriter:
    """Writes what was held for long enough, on one daemon thread that starts with the first record.

    ``drop`` returns only when the record of that task is written or never will be, so what is
    written for the task afterwards comes later.

    Args:
        write: Writes one record; raises nothing.
    """

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, Any]] = {}
        self._has_work = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, task_id: str, record: Any, seconds: float) -> None:
        """Write ``record`` in ``seconds``, the same for all, unless it is dropped before."""
        if self._pid != os.getpid():
            self._start_over()
        with self._lock:
            self._held.pop(task_id, None)
            self._held[task_id] = (time.monotonic() + seconds, record)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskapp-started", daemon=True)
                self._thread.start()
        if not self._has_work.is_set():
            self._has_work.set()

    def drop(self, task_id: str) -> None:
        """Forget the record of ``task_id``, if there is one."""
        if self._thread is None or self._pid != os.getpid():
            return
        with self._lock:
            self._held.pop(task_id, None)

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            with self._lock:
                pause_seconds = self._write_due()
                if pause_seconds is None:
                    self._has_work.clear()
            time.sleep(pause_seconds or 0)

    def _write_due(self) -> float | None:
        """Write what is due, at most ``AT_ONCE``; return the seconds to the next, None if there is none."""
        for _ in range(AT_ONCE):
            if not self._held:
                return None
            task_id, (due_at, record) = next(iter(self._held.items()))
            if (seconds := due_at - time.monotonic()) > 0:
                return seconds
            del self._held[task_id]
            self._write(record)
        return 0.0
