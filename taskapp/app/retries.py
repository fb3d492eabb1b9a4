"""Retry policies of task types: how long to wait after which error, and how many retries there may be in all.

error ──► Backoff of its type, Retry-After ──► countdown ──► budget of the task type left? ──► retry, else failure
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from random import uniform
from time import time
from typing import Any, NamedTuple

from celery.exceptions import Ignore, Reject, Retry

from taskapp.app.masks import hides
from taskapp.app.progress import attempt_of
from taskapp.client.limits.rates import BadRate, read_rate
from taskapp.engine.retry_budgets import RetryBudget
from taskapp.errors import InvalidPayload, PermanentError
from taskapp.errors.retries import BadBackoff, BadRetryOption
from taskapp.errors.wording import in_words
from taskapp.transport.attempts_header import ATTEMPTS_HEADER, Attempt, with_attempt

NEVER_RETRIED = (PermanentError, InvalidPayload)
SIGNALS = (Ignore, Reject, Retry)
LONGEST_SECONDS = 3_650 * 86_400
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a task waits before it is retried after an error.

    The first retry waits up to ``first`` seconds, each further one ``factor`` times as long, and none longer than
    ``most``.

    Raises:
        BadBackoff: A number is out of range.
    """

    first: float = 1.0
    """Seconds, 0 or more."""
    factor: float = 2.0
    """1 or more; 1: always the same time."""
    most: float = 600.0
    """Seconds, up to ten years; not less than ``first``."""
    jitter: bool = True
    """Draw each time evenly from zero to that, so that tasks which failed together are not retried together."""
    max_retries: int | None = None
    """Maximum number of retries of a task that fails with this error; ``None``: that of its type."""

    def __post_init__(self) -> None:
        for field in fields(self)[:3]:
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise BadBackoff(field.name, value, "use a number")
        if not 0 <= self.first <= LONGEST_SECONDS:
            raise BadBackoff("first", self.first, "use a number of seconds from 0 to ten years")
        if self.factor < 1:
            raise BadBackoff("factor", self.factor, "use 1 or more")
        if not self.first <= self.most <= LONGEST_SECONDS:
            raise BadBackoff("most", self.most, "use a number of seconds from first to ten years")
        if not isinstance(self.jitter, bool):
            raise BadBackoff("jitter", self.jitter, "use True or False")
        number = self.max_retries
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise BadBackoff("max_retries", number, "use a number from 0, or None")

    def seconds(self, retries: int) -> float:
        """Return how long to wait before the next retry, after ``retries`` of them."""
        try:
            longest = min(self.first * self.factor**retries, self.most)
        except OverflowError:
            longest = self.most if self.first else 0.0
        return uniform(0, longest) if self.jitter else longest  # noqa: S311 - spreads load


class RetryTask:
    """Options about retries of a type, see ``docs/retries.md``; ``None``: Celery's alone."""

    retry_on: Mapping[type[Exception], Backoff] | None = None
    """Retry automatically after these errors, each with its own times; the closest class counts."""
    retry_budget: float | str | None = None
    """Retries of all tasks of this type: a share of its runs in the last minute (``0.1``), or a number (``"20/m"``)."""


class DeclaredRetries(NamedTuple):
    """What a task type declares about its retries, checked."""

    on: Mapping[type[Exception], Backoff]
    budget: RetryBudget | None


def check_retries(task_type: Any) -> DeclaredRetries:
    """Return what ``task_type``, which is bound, declares about retries.

    Raises:
        BadRetryOption: An option is invalid, has no effect, or contradicts another one.
    """
    return DeclaredRetries(_retried_on(task_type), _budget(task_type))


def _retried_on(task_type: Any) -> Mapping[type[Exception], Backoff]:
    given = task_type.retry_on
    if given is None:
        return {}

    def bad(remedy: str) -> BadRetryOption:
        return BadRetryOption.of(task_type.name, "retry_on", given, remedy)

    if not isinstance(given, Mapping) or not given:
        raise bad("use classes of errors with their times, as in {TimeoutError: Backoff(first=1)}")
    for kind, backoff in given.items():
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise bad(f"{kind!r} is not a class of errors")
        if issubclass(kind, (*NEVER_RETRIED, *SIGNALS)):
            raise bad(f"{kind.__name__} is never retried; remove it")
        if not isinstance(backoff, Backoff):
            raise bad(f"the value of {kind.__name__} is not a Backoff; use Backoff(first=1)")
        if kind in tuple(getattr(task_type, "dont_autoretry_for", ())):
            raise bad(f"{kind.__name__} is in dont_autoretry_for as well; remove it from one of the two")
    return given


def _budget(task_type: Any) -> RetryBudget | None:
    given = task_type.retry_budget
    if given is None:
        return None
    problem = "use a share of its runs, above 0 and below 1, or a number of retries such as '20/m'"
    if isinstance(given, str):
        try:
            rate = read_rate(given)
        except BadRate as error:
            raise BadRetryOption.of(task_type.name, "retry_budget", given, str(error)) from error
        if rate is None or "/" not in given:
            raise BadRetryOption.of(task_type.name, "retry_budget", given, problem)
        budget = RetryBudget(rate.period_ms, most=rate.limit)
    elif isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1:
        raise BadRetryOption.of(task_type.name, "retry_budget", given, problem)
    else:
        budget = RetryBudget(MINUTE_MS, share=float(given))
    if not task_type.acks_late:
        remedy = "a retry of a task with acks_late=False is sent while it runs, and cannot be withdrawn; remove one"
        raise BadRetryOption.of(task_type.name, "retry_budget", given, remedy)
    return budget


def backoff_for(task: Any, error: object) -> Backoff | None:
    """Return the backoff of ``task`` after ``error``: that of the closest class; ``None``: it has none."""
    declared: DeclaredRetries = task.declared_retries
    if not declared.on:
        return None
    return next((declared.on[kind] for kind in type(error).__mro__ if kind in declared.on), None)


def budget_text(task: Any) -> str:
    """Return the retry budget of ``task`` as text."""
    given = task.retry_budget
    return given if isinstance(given, str) else f"{given:.3g} of its runs in the last minute"


def with_attempts(task: Any, error: object, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a retry of the running ``task`` because of ``error``, which keeps its attempts so far."""
    request = task.request
    text = "" if error is None else type(error).__name__ if hides(task) else in_words(error)
    attempt = Attempt(attempt_of(request), time(), text)
    headers = options.get("headers") or request.headers or {}
    kept = with_attempt(request, attempt)
    return {**options, "headers": {**headers, ATTEMPTS_HEADER: kept}}
