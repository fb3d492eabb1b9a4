"""What the pool tells a request never fails: nothing of a message, of a run or of its end may raise in the loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.utils.log import get_logger
from celery.worker.state import task_ready

from taskapp.celery_internals import context_of
from taskapp.errors.wording import in_words
from taskapp.execution.failures import as_error
from taskapp.transport.message import Received

logger = get_logger(__name__)

UNTOLD = 2
"""In place of the 1 of a run that failed: it ended before anything could be stored of it."""


def guarded(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Make a callback of a request such that an error in it ends this request alone: its task fails."""

    @wraps(callback)
    def call(request: Any, *args: Any, **options: Any) -> Any:
        try:
            return callback(request, *args, **options)
        except BaseException as raised:
            error = as_error(raised)
            if not isinstance(error, Exception):
                raise
            message = request.message
            if not isinstance(message, Received) and isinstance(error, request.connection_errors):
                raise  # Celery connects anew
            give_up(request, error)
            return None

    return call


def fail_unreported(request: Any, error: BaseException) -> None:
    """Let the task of ``request`` fail, of whose run nothing is stored."""
    message = request.message
    if not (isinstance(message, Received) and message.delivery_tag in message.channel.process.node.held):
        # No letter that speaks for it.
        try:
            request.task.backend.mark_as_failure(
                request.id, error, request=context_of(request), store_result=request.store_errors
            )
        except Exception as refused:  # noqa: BLE001 - as the run's own attempt was
            logger.error("the failure of task %s cannot be stored: %s", request.id, in_words(refused))
    give_up(request, error)


def give_up(request: Any, error: BaseException) -> None:
    """Let the task of ``request`` fail and its message go to the dead letters, if neither is settled."""
    logger.error("task %s[%s] fails: %s", request.name, request.id, in_words(error), exc_info=error)
    task_ready(request)
    message = request.message
    if isinstance(message, Received):
        request.acknowledged = True
        if message.delivery_tag in message.channel.process.node.held:
            # Without a settlement: a letter whose task fails by what can be read of it.
            detail = f"it cannot be begun, or its end not be recorded: {in_words(error)}"
            message.channel.bury(message.delivery_tag, "failed", detail)
    elif not request.acknowledged:
        request.reject(requeue=False)
