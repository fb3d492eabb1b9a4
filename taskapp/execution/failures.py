"""What a task has failed with, whatever left its function or a hook."""

from __future__ import annotations

import os
from asyncio import CancelledError
from typing import Any

from billiard.common import terminate_handler_fired  # type: ignore[attr-defined]  # missing in the stubs
from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # the same
from billiard.exceptions import WorkerLostError
from celery.exceptions import SoftTimeLimitExceeded

from taskapp.errors import CoroutineCancelled, OutOfMemory, TaskExited
from taskapp.errors.wording import shown, sound, text_of
from taskapp.execution.coroutines import SoftTimeLimitReached, Stopped

main_pid = os.getpid()
"""The process that imported this; in a child of a pool a SystemExit ends it, and its parent draws the conclusion."""


def ends_the_run(error: BaseException) -> bool:
    """Return whether ``error`` comes from who ends the run, or this child process, from outside."""
    return isinstance(error, Stopped) or (isinstance(error, SystemExit) and bool(terminate_handler_fired()))


def as_failure(error: BaseException) -> BaseException:
    """Return what the task has failed with: an error that would end more than the task becomes one that does not.

    Raises:
        SystemExit: In a child process, which it ends.
    """
    error = sound(error)
    if (limit := _soft_limit_in(error)) is not None:
        failure: Exception = SoftTimeLimitExceeded(*limit.args)
    elif isinstance(error, MemoryError):
        failure = OutOfMemory(text_of(error))
    elif isinstance(error, CancelledError):
        failure = CoroutineCancelled()
    elif isinstance(error, SystemExit) and os.getpid() != main_pid:
        raise error
    else:
        return as_error(error)
    return failure.with_traceback(error.__traceback__)


def as_error(error: BaseException) -> BaseException:
    """Return what a hook has raised, as an error that ends nothing but the hook; what ends the run stays as it is."""
    error = sound(error)
    if isinstance(error, Exception) or ends_the_run(error):
        return error
    exited = TaskExited(shown(error)).with_traceback(error.__traceback__)
    exited.__cause__ = error
    return exited


def failure_in(seen: Any) -> Any:
    """Return the error in an ``ExceptionInfo``: one at which Celery would end the whole worker becomes another."""
    error = seen.exception
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    if isinstance(error, MemoryError):
        error = seen.exception = OutOfMemory(text_of(error))
    if isinstance(error, SystemExit | KeyboardInterrupt):
        error = WorkerLostError(text_of(error))
    return error


def _soft_limit_in(error: BaseException) -> BaseException | None:
    """Return the soft limit that ``error`` is; a ``TaskGroup`` puts what is raised in its body into a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, SoftTimeLimitReached) else None
