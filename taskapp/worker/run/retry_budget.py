"""Asks whether the retry budget of a task type has a retry left; if not, the task fails with the error of its run."""

from __future__ import annotations

from asyncio import to_thread
from contextlib import suppress
from functools import partial
from typing import Any

from celery.utils.log import get_logger

from taskapp.app.retries import budget_text
from taskapp.client.limits.rate_control import lend_limits
from taskapp.engine.retry_budgets import RetryBudget
from taskapp.engine.settlement import BudgetedRun, of_this_run
from taskapp.errors.retries import RetryBudgetUsedUp, not_retried
from taskapp.errors.wording import shown
from taskapp.execution.side_loop import is_on_a_loop
from taskapp.worker.run.reports import Steps

logger = get_logger(__name__)


def budget_of(task: Any) -> RetryBudget | None:
    """Return the retry budget of ``task``; ``None``: it has none."""
    declared = getattr(task, "declared_retries", None)  # a stock task has none
    return None if declared is None else declared.budget


def counts_for(task: Any) -> BudgetedRun | None:
    """Return how each run of ``task`` counts for its budget; ``None``: it does not."""
    budget = budget_of(task)
    return BudgetedRun(task.name, budget.period_ms) if budget is not None and budget.share else None


def error_instead_of(task: Any, budget: RetryBudget, request: Any, retry: Any) -> Steps:
    """Take a retry from the budget; if none is left, withdraw the retry and return the error to fail with.

    While Redis is away, retries are allowed.
    """
    take = partial(_take, task, budget, request.id)
    if (yield to_thread(take)) if is_on_a_loop() else take():
        return None
    if (settlement := of_this_run()) is not None:
        settlement.keep_nothing()
    reason = not_retried(task.name, budget_text(task))
    logger.warning("task %s[%s] is %s", task.name, request.id, reason)
    error = retry.exc
    if not isinstance(error, BaseException):
        return RetryBudgetUsedUp(task.name, budget_text(task)).with_traceback(retry.__traceback__)
    with suppress(Exception):  # raised by the class of the error
        error.add_note(reason)
    return error if error.__traceback__ is not None else error.with_traceback(retry.__traceback__)


def _take(task: Any, budget: RetryBudget, task_id: str) -> bool:
    try:
        with lend_limits(task.app) as admin:
            return admin is None or admin.take_retry(task.name, budget)
    except Exception as error:  # noqa: BLE001 - Redis is away, or refuses
        logger.error("could not ask for the retry budget of task %s[%s]: %s", task.name, task_id, shown(error))
        return True
