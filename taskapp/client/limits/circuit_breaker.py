"""The option ``circuit_breaker`` of a task type."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from taskapp.errors.limits import BadCircuitBreaker

FAILURES_MOST = 10_000
LONGEST_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """When tasks of a type stop being started, on all nodes, because they fail, and for how long.

    Raises:
        BadCircuitBreaker: A value is out of range.
    """

    failures: int = 5
    """Number of failed runs with the same class of error that open the circuit."""
    within: float | None = None
    """In this number of seconds, up to a day; ``None``: in a row."""
    open_for: float = 30.0
    """Seconds until one task is tried, up to a day."""
    errors: tuple[type[Exception], ...] = (Exception,)
    """Classes of errors that count; a ``PermanentError`` never does."""

    def __post_init__(self) -> None:
        number = self.failures
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= FAILURES_MOST:
            raise BadCircuitBreaker("failures", number, f"use a number from 1 to {FAILURES_MOST:,}")
        if self.within is not None and not _is_length(self.within):
            raise BadCircuitBreaker("within", self.within, "use a number of seconds up to a day, or None: in a row")
        if not _is_length(self.open_for):
            raise BadCircuitBreaker("open_for", self.open_for, "use a number of seconds, up to a day")
        kinds = self.errors
        is_sound = isinstance(kinds, tuple) and kinds and all(isinstance(kind, type) for kind in kinds)
        if not (is_sound and all(issubclass(kind, Exception) for kind in kinds)):
            raise BadCircuitBreaker("errors", kinds, "use a tuple of classes of errors, as in (TimeoutError,)")


def _is_length(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return is_number and 0.001 <= value <= LONGEST_SECONDS  # type: ignore[operator]  # a number
