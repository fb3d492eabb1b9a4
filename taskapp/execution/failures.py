"""Turns any exception that leaves a task's function or a hook into the error to report."""

from __future__ import annotations

import os
import sys
from asyncio import CancelledError
from typing import Any

from billiard.common import terminate_handler_fired  # type: ignore[attr-defined]  # missing in the stubs
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback  # type: ignore[attr-defined]  # the same
from billiard.exceptions import WorkerLostError
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from taskapp.errors import CoroutineCancelled, OutOfMemory, TaskExited
from taskapp.errors.frames import begin_in_task
from taskapp.errors.wording import shown, sound, text_of
from taskapp.execution.coroutines import SoftTimeLimitReached, Stopped

main_pid = os.getpid()
"""Id of the process that imported this module; in a pool child, a SystemExit ends the child, and its parent reacts."""


def ends_the_run(error: BaseException) -> bool:
    """Return whether ``error`` means that the run, or this child process, is being ended from outside."""
    return isinstance(error, Stopped) or (isinstance(error, SystemExit) and bool(terminate_handler_fired()))


def interrupts(error: BaseException) -> bool:
    """Return whether ``error`` is meant for the code it was raised in, whatever that code calls."""
    return ends_the_run(error) or isinstance(error, SoftTimeLimitExceeded)


def as_failure(error: BaseException) -> BaseException:
    """Return the error a task fails with, replacing one that would end more than the task.

    Raises:
        SystemExit: ``error`` is one and this is a child process, which has to end.
    """
    error = sound(error)
    if (limit := _soft_limit_in(error)) is not None:
        failure: Exception = SoftTimeLimitExceeded(*limit.args)
    elif (green := sys.modules.get("gevent.timeout")) is not None and isinstance(error, green.Timeout):
        failure = TimeLimitExceeded(error.seconds)  # gevent's pool sets it for a hard limit
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
    """Return the error of a hook, replacing one that would end more than the hook; keep one that ends the run."""
    error = sound(error)
    if isinstance(error, Exception) or ends_the_run(error):
        return error
    exited = TaskExited(shown(error)).with_traceback(error.__traceback__)
    exited.__cause__ = error
    return exited


def traceback_of(error: BaseException) -> str:
    """Return the traceback of ``error`` as it is stored: it begins with the task's own code."""
    begin_in_task(error)
    return str(ExceptionInfo((type(error), error, error.__traceback__)).traceback)


def failure_in(seen: Any) -> Any:
    """Return the error in an ``ExceptionInfo``, replacing one that would make Celery end the whole worker."""
    error = seen.exception
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    if isinstance(error, MemoryError):
        error = seen.exception = OutOfMemory(text_of(error))
    if isinstance(error, SystemExit | KeyboardInterrupt):
        error = WorkerLostError(text_of(error))
    return error


def _soft_limit_in(error: BaseException) -> BaseException | None:
    """Return ``error`` if it is a soft time limit, or the limit that a ``TaskGroup`` has wrapped in a group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, SoftTimeLimitReached) else None
