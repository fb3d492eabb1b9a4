"""Runs that fail outside the task's own code, for example by undecodable arguments or a hook that raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.exceptions import Reject
from celery.utils.log import get_logger

from taskapp.celery_internals import current_tasks
from taskapp.engine.settlement import Settlement, collecting
from taskapp.errors.wording import BrokenError, in_words, name_of, sound
from taskapp.execution.failures import as_failure, ends_the_run
from taskapp.redis.outage import SERVER_GONE
from taskapp.worker.run.guard import UNREPORTED
from taskapp.worker.run.request_context import restored
from taskapp.worker.run.tracer import Outcome, Runner

logger = get_logger(__name__)


def refuse(runner: Runner, given: dict[str, Any], error: Exception, follow_ups: Mapping[str, Any] | None) -> Outcome:
    """Fail a task whose arguments cannot be decoded, with hooks and signals as for any failure.

    Args:
        runner: Runner of the task type.
        given: Headers of the message.
        error: Why the arguments cannot be decoded.
        follow_ups: The follow-ups, if they can be read; with ``None``, the group id identifies the chord.
    """
    given.update(follow_ups or {}, hostname=runner.hostname, is_eager=False)
    request = runner.request((), {}, given)
    if follow_ups is None:
        request.chord = request.group
    current_tasks.push(runner.task)
    runner.task.request_stack.push(request)
    try:
        return runner.report(request, error, states.FAILURE)[2]
    finally:
        current_tasks.pop()
        runner.task.request_stack.pop()


def broken_off(
    runner: Runner, task_id: str, given: dict[str, Any], raised: BaseException, settlement: Settlement | None
) -> Outcome:  # fmt: skip
    """Fail the task of a run that broke off with ``raised``, for example in a hook or a follow-up.

    Raises:
        BaseException: ``raised`` ends the run or this child process from outside.
    """
    error = as_failure(raised)
    if ends_the_run(error):
        raise error
    if isinstance(error, Reject):
        return 1, _info(error), None
    logger.error("task %s[%s] failed outside its own code: %s", runner.task.name, task_id, in_words(error))
    has_result = settlement is not None and (settlement.results or settlement.external_writes)
    is_stored = (
        has_result or (settlement is None and isinstance(error, SERVER_GONE)) or _fail(runner, task_id, given, error)
    )
    return 1 if is_stored else UNREPORTED, _info(error), None


def _fail(runner: Runner, task_id: str, given: dict[str, Any], error: BaseException) -> bool:
    """Store the failure; return whether that is done, or useless to try again elsewhere."""
    # Without follow-ups, which may be what raised the error.
    request = runner.request((), {}, restored(given, task_id))
    request.errbacks = request.chain = None
    request.chord = request.group
    kept = error
    for _ in range(2):
        try:
            with collecting(drop=True):
                pass
            runner.backend.mark_as_failure(request.id, kept, request=request)
        except BaseException as refused:
            if ends_the_run(problem := sound(refused)):
                raise
            logger.error("could not store the failure of task %s: %s", request.id, in_words(problem))
            if isinstance(problem, SERVER_GONE):
                return True
            kept = BrokenError(name_of(error), name_of(problem))  # in case the error's arguments cannot be encoded
        else:
            return True
    return False


def unreported(error: BaseException) -> tuple[int, Any, None, None]:
    """Return the outcome of a run that ended with ``error`` before anything could be stored about it."""
    return UNREPORTED, _info(error), None, None


def _info(error: BaseException) -> ExceptionInfo:
    return ExceptionInfo((type(error), error, error.__traceback__), internal=True)
