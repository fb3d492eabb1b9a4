"""Runs that fail outside of their task's own code: arguments that cannot be decoded, a hook that raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import _state, states
from celery.utils.log import get_logger

from taskapp.broker.settlement import Settlement
from taskapp.results.outage import SERVER_GONE
from taskapp.worker.runner import Outcome, Runner

_task_stack: Any = _state._task_stack  # type: ignore[attr-defined]  # missing in the stubs

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
    _task_stack.push(runner.task)
    runner.task.request_stack.push(request)
    try:
        return runner.report(request, error, states.FAILURE)[2]
    finally:
        _task_stack.pop()
        runner.task.request_stack.pop()


def fail(runner: Runner, given: dict[str, Any], error: Exception, settlement: Settlement | None) -> Outcome:
    """End a run that broke off with ``error``, as a hook or what follows it had it: its task fails all the same."""
    logger.error("task %s[%s] broke off outside of its own code: %r", runner.task.name, given["id"], error)
    if settlement is None and isinstance(error, SERVER_GONE):
        raise error
    if settlement is None or not (settlement.results or settlement.elsewhere):
        # Without what follows: nobody could make sense of that.
        request = runner.request((), {}, given)
        request.errbacks = request.chain = None
        request.chord = request.group
        runner.backend.mark_as_failure(request.id, error, request=request)
    return 1, ExceptionInfo((type(error), error, error.__traceback__), internal=True), None
