"""Guards the callbacks of requests, so that no message, run or outcome raises an exception in the loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery.app.task import Context
from celery.states import READY_STATES
from celery.utils.log import get_logger
from celery.worker.state import task_ready

from taskapp.celery_internals import content_of, headers_of
from taskapp.errors.wording import in_words
from taskapp.execution.failures import as_error
from taskapp.transport.message import Received
from taskapp.worker.run.request_context import restored

logger = get_logger(__name__)

UNREPORTED = 2
"""Used instead of 1 for a failed run about which nothing could be stored."""


def guarded(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a callback of a request so that an error in it fails this task and affects nothing else."""

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
                raise  # Celery reconnects
            give_up(request, error)
            return None

    return call


def fail_unreported(request: Any, error: BaseException) -> None:
    """Fail the task of ``request``, about whose run nothing has been stored."""
    message = request.message
    if isinstance(message, Received) and message.delivery_tag not in message.channel.process.node.held:
        _store_failure(request, error)  # no dead letter will fail the task
    give_up(request, error)


def give_up(request: Any, error: BaseException) -> None:
    """Fail the task of ``request`` and bury or reject its message, unless that is already settled.

    A pool that is about to start the task sees ``is_given_up`` and does not.
    """
    logger.error("task %s[%s] failed: %s", request.name, request.id, in_words(error), exc_info=error)
    request.is_given_up = True
    task_ready(request)
    message = request.message
    if isinstance(message, Received):
        request.acknowledged = True
        if message.delivery_tag in message.channel.process.node.held:
            # Without a settlement, so that ``DeadTaskFailer`` fails the task from the letter.
            detail = f"could not start the task or record its outcome: {in_words(error)}"
            message.channel.bury(message.delivery_tag, "failed", detail)
        return
    if not _has_outcome(request):
        _store_failure(request, error)
    if not request.acknowledged:
        request.reject(requeue=False)


def _has_outcome(request: Any) -> bool:
    """Return whether the run has stored its outcome, which an error of a callback does not change."""
    try:
        return request.task.backend.get_state(request.id) in READY_STATES
    except Exception as error:  # noqa: BLE001 - unreachable, or a result that cannot be read
        logger.error("could not read the state of task %s: %s", request.id, in_words(error))
        return False


def _store_failure(request: Any, error: BaseException) -> None:
    headers = restored(headers_of(request), request.id)
    # The second time without follow-ups, which may be what is refused.
    for context in (Context({**headers, **_follow_ups(request)}), Context(id=request.id, task=request.task.name)):
        try:
            request.task.backend.mark_as_failure(request.id, error, request=context, store_result=request.store_errors)
        except Exception as refused:  # noqa: BLE001 - refused like the run's own attempt
            logger.error("could not store the failure of task %s: %s", request.id, in_words(refused))
        else:
            return


def _follow_ups(request: Any) -> dict[str, Any]:
    try:
        return content_of(request)[2] or {}
    except Exception:  # noqa: BLE001 - the body cannot be decoded
        return {}
