"""Support for libraries that wrap the call of a task to see its errors, such as Sentry's.

A coroutine raises its error long after the call. So the task is called once more, only to raise that error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import unwrap
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

from taskapp.execution.coroutines import run_to_end

to_raise: ContextVar[Exception | None] = ContextVar("taskapp_to_raise", default=None)
"""The error that a call of a task raises instead of running its function."""


def is_watched(task: Any, own_call: Any) -> bool:
    """Return whether the ``__call__`` of ``task`` is a wrapper around ``own_call``."""
    call = type(task).__call__
    return call is not own_call and unwrap(call) is own_call


def shown(task: Any, error: BaseException, args: Any, kwargs: Any) -> BaseException:
    """Show the wrapper of ``task`` the error its coroutine has raised; return the error that the wrapper raises."""
    if not isinstance(error, Exception) or isinstance(error, Retry | Ignore | Reject):
        return error
    with _raising(error):
        try:
            task(*args, **kwargs)
        except Exception as seen:  # noqa: BLE001 - usually ``error`` itself
            return seen
    return error


def run_shown(task: Any, coroutine: Any, args: Any, kwargs: Any) -> Any:
    """Run a coroutine of ``task`` to its end; show its error to the wrapper, see ``shown``."""
    try:
        return run_to_end(coroutine)
    except Exception as error:
        if (seen := shown(task, error, args, kwargs)) is error:
            raise
        raise seen from error


@contextmanager
def _raising(error: Exception) -> Iterator[None]:
    token = to_raise.set(error)
    try:
        yield
    finally:
        to_raise.reset(token)
