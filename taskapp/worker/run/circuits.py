"""Tells the circuit breaker of a task type how its runs end, in the step that settles them."""

from __future__ import annotations

from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Retry

from taskapp.app.retries import NEVER_RETRIED
from taskapp.client.limits.circuit_breaker import CircuitBreaker
from taskapp.engine.settlement import CircuitRun, Settlement, of_this_run
from taskapp.errors.wording import name_of


def breaker_of(task: Any) -> CircuitBreaker | None:
    """Return the circuit breaker of ``task``; ``None``: it has none."""
    breaker: CircuitBreaker | None = getattr(task, "circuit_breaker", None)
    return breaker


def note_end(task: Any, breaker: CircuitBreaker, error: BaseException | None) -> None:
    """Add the end of the run of ``task`` to its settlement, unless its ``error`` does not count."""
    settlement = of_this_run()
    reason = error.exc if isinstance(error, Retry) else error
    if settlement is not None and (error is None or counts(breaker, reason)):
        settlement.circuit = _run(task, breaker, "" if error is None else name_of(reason))


def settlement_of_lost(task: Any, error: BaseException | None) -> Settlement:
    """Return a settlement for a run that ended with ``error`` and has lost its own: killed, or never started."""
    settlement, breaker = Settlement(), breaker_of(task)
    if breaker is not None and isinstance(error, TimeLimitExceeded | WorkerLostError) and counts(breaker, error):
        settlement.circuit = _run(task, breaker, name_of(error))
    return settlement


def counts(breaker: CircuitBreaker, error: object) -> bool:
    """Return whether ``error`` counts."""
    return isinstance(error, breaker.errors) and not isinstance(error, NEVER_RETRIED)


def _run(task: Any, breaker: CircuitBreaker, kind: str) -> CircuitRun:
    within, open_for = round((breaker.within or 0) * 1_000), round(breaker.open_for * 1_000)
    return CircuitRun(task.name, kind, breaker.failures, within, open_for)
