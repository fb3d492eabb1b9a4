"""Log lines of a task: those stored, and new ones as they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

from celery import states
from redis.exceptions import RedisError

from taskapp.engine.task_notes import LINES_AT_ONCE, LogLine, Notes
from taskapp.errors.tasks import NoTaskLogs
from taskapp.monitor.task_state.outcome import read_outcome
from taskapp.monitor.task_state.resolve import task_state
from taskapp.processes import check_interrupted, sleep_unless_interrupted

WAIT_SECONDS = 0.5
LATE_SECONDS = 1.0
"""How long after a task's end its lines may still arrive: nodes write them a few times a second."""
STATE_SECONDS = 2.0
"""How often to check whether a task without a result has ended; less often if the check is slow."""
PATIENCE_SECONDS = 60.0


def log_lines(task_id: str, app: Any = None) -> list[LogLine]:
    """Return the stored log lines of ``task_id``, oldest first.

    Raises:
        NoTaskLogs: Neither tasks nor results use Redis.
        redis.RedisError, OSError, kombu.exceptions.OperationalError: The server cannot be reached.
    """
    notes = _open(app or _own_app())
    try:
        found: list[LogLine] = []
        while page := notes.lines(task_id, found[-1].position if found else "-"):
            found += page
            if len(page) < LINES_AT_ONCE:
                break
        return found
    finally:
        notes.close()


def follow_log(task_id: str, app: Any = None) -> Iterator[LogLine]:
    """Yield the log lines of ``task_id``, including new ones as they arrive, until the task has ended.

    Waits up to a minute for a server that cannot be reached.

    Raises:
        NoTaskLogs: Neither tasks nor results use Redis.
        redis.RedisError, OSError, kombu.exceptions.OperationalError: The server cannot be reached.
    """
    follower = _Follower(task_id, app or _own_app())
    try:
        yield from follower.lines()
    finally:
        follower.notes.close()


class _Follower:
    def __init__(self, task_id: str, app: Any) -> None:
        self._task_id, self._app = task_id, app
        self.notes = _open(app)
        self._last = "-"
        self._look_at = 0.0
        self._ends_at = float("inf")

    def lines(self) -> Iterator[LogLine]:
        away_since = None
        while True:
            check_interrupted()
            try:
                page = self.notes.lines(self._task_id, self._last, wait_seconds=WAIT_SECONDS)
                is_over = not page and self._has_ended()
            except RedisError:
                away_since = away_since or monotonic()
                if monotonic() > away_since + PATIENCE_SECONDS:
                    raise
                sleep_unless_interrupted(WAIT_SECONDS)
                continue
            away_since = None
            for line in page:
                self._last = line.position
                yield line
            if is_over:
                return

    def _has_ended(self) -> bool:
        """Return whether the task ended long enough ago for all its lines to have arrived."""
        if read_outcome(self._app, self._task_id).state in states.READY_STATES:
            self._ends_at = min(self._ends_at, monotonic() + LATE_SECONDS)
        elif monotonic() >= self._look_at:
            began_at = monotonic()
            state = task_state(self._task_id, self._app).state
            self._look_at = monotonic() + max(STATE_SECONDS, 5 * (monotonic() - began_at))
            is_over = state.is_final or state == "unknown"
            self._ends_at = min(self._ends_at, monotonic() + LATE_SECONDS) if is_over else float("inf")
        return monotonic() >= self._ends_at


def _open(app: Any) -> Notes:
    notes: Notes | None = app.open_notes()
    if notes is None:
        raise NoTaskLogs
    return notes


def _own_app() -> Any:
    from taskapp.celery import current

    return current()
