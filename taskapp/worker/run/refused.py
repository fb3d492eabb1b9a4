"""Runs that fail outside of their task's own code: arguments that cannot be decoded, a hook that raises."""

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
from taskapp.worker.run.guard import UNTOLD
from taskapp.worker.run.tracer import Outcome, Runner

logger = get_logger(__name__)


def refuse(runner: Runner, given: dict[str, Any], error: Exception, follow_ups: Mapping[str, Any] | None) -> Outcome:
    """End a run whose arguments cannot be decoded: its task fails, hooks and signals as for any failure.

    Args:
        runner: Of its type.
        given: Headers of its message.
        error: Why.
        follow_ups: What is known of the tasks that follow; ``None``: which chord it is says the group.
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
    runner: Runner, given: dict[str, Any], raised: BaseException, settlement: Settlement | None
) -> Outcome:  # fmt: skip
    """End a run that broke off with ``raised``, as a hook or what follows it had it: its task fails all the same.

    Raises:
        BaseException: What ends the run, or this child process, from outside.
    """
    error = as_failure(raised)
    if ends_the_run(error):
        raise error
    if isinstance(error, Reject):
        return 1, _seen(error), None
    what = "task %s[%s] broke off outside of its own code: %s"
    logger.error(what, runner.task.name, given["id"], in_words(error))
    is_told = settlement is not None and (settlement.results or settlement.external_writes)
    if not is_told and not (settlement is None and isinstance(error, SERVER_GONE)):
        _fail(runner, given, error)
    return 1, _seen(error), None


def _fail(runner: Runner, given: dict[str, Any], error: BaseException) -> None:
    # Without what follows: nobody could make sense of that.
    request = runner.request((), {}, given)
    request.errbacks = request.chain = None
    request.chord = request.group
    kept = error
    for _ in range(2):
        try:
            with collecting(drop=True):
                pass
            return runner.backend.mark_as_failure(request.id, kept, request=request)  # type: ignore[no-any-return]
        except BaseException as refused:
            if ends_the_run(problem := sound(refused)):
                raise
            logger.error("the failure of task %s cannot be stored: %s", request.id, in_words(problem))
            if isinstance(problem, SERVER_GONE):
                return None
            kept = BrokenError(name_of(error), name_of(problem))  # in case that its arguments cannot be encoded
    return None


def unreported(error: BaseException) -> tuple[int, Any, None, None]:
    """Return the outcome of a run that ``error`` ended before anything could be stored of it."""
    return UNTOLD, _seen(error), None, None


def _seen(error: BaseException) -> ExceptionInfo:
    return ExceptionInfo((type(error), error, error.__traceback__), internal=True)
