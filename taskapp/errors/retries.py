"""Errors about retries: their declaration, and what they refuse."""

from __future__ import annotations

from taskapp.errors import TaskappError
from taskapp.errors.limits import BadTypeOption


class BadRetryOption(BadTypeOption):
    """An option about the retries of a task type is invalid."""


class BadBackoff(TaskappError, ValueError):
    """A ``Backoff`` has an invalid number."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        super().__init__(f"Backoff({name}={value!r}) is invalid: {remedy}")


class RetryBudgetUsedUp(TaskappError):
    """A task asked for a retry without an error, but the retry budget of its type is used up."""

    def __init__(self, task: str, budget: str) -> None:
        super().__init__(task, budget)

    def __str__(self) -> str:
        return not_retried(*self.args)


def not_retried(task: str, budget: str) -> str:
    """Return why a task of the type ``task`` with this ``retry_budget`` is not retried."""
    return f"not retried: the retry budget of {task!r} ({budget}) is used up"
