"""Delays STARTED records: a task that ends quickly needs none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from taskapp.background import LazyThread, in_child


class StartedWriter:
    """Writes records after a delay, on one daemon thread that starts with the first record.

    ``drop`` returns only when the task's record is written or never will be, so that later records of the
    task are written after it. Nothing else waits for the server.

    Args:
        write: Writes one record; raises nothing.
    """

    def __init__(self, write: Callable[[Any], None]) -> None:
        self._write = write
        self._thread = LazyThread(self._run, "started")
        self._start_over()
        in_child(StartedWriter._start_over, owner=self)

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, Any]] = {}
        self._writing = threading.Lock()
        self._written = ""
        """The task whose record is being written, or was written last."""
        self._has_work = threading.Event()

    def hold(self, task_id: str, record: Any, seconds: float) -> None:
        """Write ``record`` after ``seconds``, the same for all records, unless it is dropped before."""
        with self._lock:
            self._held.pop(task_id, None)
            self._held[task_id] = (time.monotonic() + seconds, record)
        self._thread.start()
        if not self._has_work.is_set():
            self._has_work.set()

    def drop(self, task_id: str) -> None:
        """Forget the record of ``task_id``, if there is one; wait for it if it is being written."""
        if not self.forget(task_id) and self._written == task_id:
            with self._writing:
                pass

    def forget(self, task_id: str) -> bool:
        """Forget the record of ``task_id``; return whether there was one. Does not wait for the server."""
        if not self._thread.is_started:
            return False
        with self._lock:
            return self._held.pop(task_id, None) is not None

    def _run(self) -> None:
        while True:
            self._has_work.wait()
            time.sleep(self._write_next())

    def _write_next(self) -> float:
        """Write the first record if it is due; return the seconds to wait before the next call."""
        with self._writing:
            with self._lock:
                if not self._held:
                    self._has_work.clear()
                    return 0.0
                task_id, (due_at, record) = next(iter(self._held.items()))
                if (seconds := due_at - time.monotonic()) > 0:
                    return seconds
                del self._held[task_id]
                self._written = task_id
            self._write(record)
        return 0.0
