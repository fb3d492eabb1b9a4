"""Crash counts of tasks that kill their child process, kept by the node for brokers that do not count deliveries.

The engine counts crashes itself. RabbitMQ would requeue such a message without limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.utils.log import get_logger
from celery.worker import state as worker_state

from taskapp.errors import CrashedTooOften
from taskapp.redis.outage import SERVER_GONE
from taskapp.settings import get_settings
from taskapp.worker.consume.completion import Seen

node: Any = worker_state  # the stubs are incomplete

logger = get_logger(__name__)

TASKS_KEPT = 10_000


class Crashes:
    """Counts crashes by task id, for the tasks that crashed most recently."""

    def __init__(self, tasks_kept: int = TASKS_KEPT) -> None:
        self._counts: dict[str, int] = {}
        self._tasks_kept = tasks_kept

    def count(self, task_id: str) -> int:
        """Add one crash of this task; return how many there have been."""
        # Reinserted at the end: the first entry is the task whose last crash is oldest, and is dropped first.
        crashes = self._counts[task_id] = self._counts.pop(task_id, 0) + 1
        if len(self._counts) > self._tasks_kept:
            del self._counts[next(iter(self._counts))]
        return crashes

    def forget(self, task_id: str) -> None:
        """Drop the count of a task that has ended."""
        self._counts.pop(task_id, None)


crashes = Crashes()
"""The crash counts of this node."""


def crashed_too_often(request: Any, error: BaseException | None) -> CrashedTooOften | None:
    """Count a crash if ``error`` is one; once the limit is reached, return the error that the task fails with."""
    if not isinstance(error, WorkerLostError) or _is_stopping():
        return None
    if crashes.count(request.id) < get_settings().crash_limit:
        return None
    return CrashedTooOften(request.task.name, request.id)


def fail_for_crashes(request: Any, error: CrashedTooOften, on_failure: Callable[[ExceptionInfo], Any]) -> None:
    """Fail the task as any other, and reject its message once the failure is stored.

    Args:
        request: The request of the run that reached the crash limit.
        error: Error that the task fails with.
        on_failure: Celery's failure handler.
    """
    request.acknowledged = True  # Celery would acknowledge before it stores the failure
    request.seen = Seen(error=error)
    state = "FAILURE"
    try:
        on_failure(_info(error))
    except SERVER_GONE as gone:
        logger.error(
            "could not store the failure of task %s[%s]: %s; it will run again", request.name, request.id, gone
        )
        state = "STARTED"
    finally:
        request.drop(state)


def _is_stopping() -> bool:
    """Return whether this node kills its children itself, or will soon."""
    # Each flag is None or False, or else an exit code, which may be 0.
    return any(flag is not None and flag is not False for flag in (node.should_stop, node.should_terminate))


def _info(error: CrashedTooOften) -> ExceptionInfo:
    try:
        raise error
    except CrashedTooOften:
        return ExceptionInfo()
