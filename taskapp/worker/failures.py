"""What a task has failed with, whatever left its function."""

from __future__ import annotations

import os
from asyncio import CancelledError

from celery.exceptions import SoftTimeLimitExceeded

from taskapp.errors import CoroutineCancelled, OutOfMemory, TaskExited
from taskapp.worker.coroutines import SoftTimeLimitReached

main_pid = os.getpid()
"""The process that imported this; in a child of a pool a SystemExit ends it, and its parent draws the conclusion."""


def as_failure(error: BaseException) -> BaseException:
    """Return what the task has failed with: an error that would end more than the task becomes one that does not."""
    if (limit := _soft_limit_in(error)) is not None:
        failure: Exception = SoftTimeLimitExceeded(*limit.args)
    elif isinstance(error, MemoryError):
        failure = OutOfMemory(str(error))
    elif isinstance(error, Exception):
        return error
    elif isinstance(error, CancelledError):
        failure = CoroutineCancelled()
    elif os.getpid() == main_pid:
        failure = TaskExited(repr(error))
    else:
        raise error
    return failure.with_traceback(error.__traceback__)


def _soft_limit_in(error: BaseException) -> BaseException | None:
    """Return the soft limit that ``error`` is; a ``TaskGroup`` puts what is raised in its body into a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, SoftTimeLimitReached) else None
