"""Libraries that put something around the call of a task to see its errors, as Sentry's does.

An error of a coroutine comes when the call is long over. So the task is called once more, and raises it.
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
"""What a call of a task raises in the place of its function."""


def is_watched(task: Any, own_call: Any) -> bool:
    """Return whether somebody has wrapped ``own_call``, with which the class of ``task`` is called."""
    call = type(task).__call__
    return call is not own_call and unwrap(call) is own_call


def shown(task: Any, error: BaseException, args: Any, kwargs: Any) -> BaseException:
    """Let who watches the calls of ``task`` see what its coroutine has raised; return what comes of that."""
    if not isinstance(error, Exception) or isinstance(error, Retry | Ignore | Reject):
        return error
    with _raising(error):
        try:
            task(*args, **kwargs)
        except Exception as seen:  # noqa: BLE001 - the same, as a rule
            return seen
    return error


def run_shown(task: Any, coroutine: Any, args: Any, kwargs: Any) -> Any:
    """Run a coroutine of ``task`` to its end, see ``shown``."""
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
