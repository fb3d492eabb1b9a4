"""Tasks that kill their child process, on brokers that do not count deliveries: the node outlives them, so it counts.

The engine counts crashes by itself. RabbitMQ gives a message back to its queue as often as it is asked to.
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

node: Any = worker_state  # the stubs lack half of it

logger = get_logger(__name__)

TASKS_KEPT = 10_000


class Crashes:
    """Counts crashes by task id, for the tasks that crashed most recently."""

    def __init__(self, tasks_kept: int = TASKS_KEPT) -> None:
        self._counts: dict[str, int] = {}
        self._tasks_kept = tasks_kept

    def count(self, task_id: str) -> int:
        """Add one crash of this task; return how many there have been."""
        # Last again: the task that crashed longest ago is the one to drop.
        crashes = self._counts[task_id] = self._counts.pop(task_id, 0) + 1
        if len(self._counts) > self._tasks_kept:
            del self._counts[next(iter(self._counts))]
        return crashes

    def forget(self, task_id: str) -> None:
        """Drop the count of a task that has ended."""
        self._counts.pop(task_id, None)


crashes = Crashes()
"""Of this node."""


def crashed_too_often(request: Any, error: BaseException | None) -> CrashedTooOften | None:
    """Count a run that ended with ``error``; return the error its task fails with once the limit is reached."""
    if not isinstance(error, WorkerLostError) or _is_stopping():
        return None
    if crashes.count(request.id) < get_settings().crash_limit:
        return None
    return CrashedTooOften(request.task.name, request.id)


def fail_for_crashes(request: Any, error: CrashedTooOften, on_failure: Callable[[ExceptionInfo], Any]) -> None:
    """Let the task fail as any other does, and reject its message once that is stored.

    Args:
        request: Of the run that was one crash too many.
        error: What the task fails with.
        on_failure: Celery's handler of failures.
    """
    request.acknowledged = True  # Celery would acknowledge before it stores the failure
    request.seen = Seen(error=error)
    state = "FAILURE"
    try:
        on_failure(_info(error))
    except SERVER_GONE as gone:
        logger.error("the failure of %s[%s] could not be stored: %s; it runs again", request.name, request.id, gone)
        state = "STARTED"
    finally:
        request.drop(state)


def _is_stopping() -> bool:
    """Return whether this node kills its children itself, or will soon."""
    # Otherwise an exit code, which may be 0.
    return any(told is not None and told is not False for told in (node.should_stop, node.should_terminate))


def _info(error: CrashedTooOften) -> ExceptionInfo:
    try:
        raise error
    except CrashedTooOften:
        return ExceptionInfo()
