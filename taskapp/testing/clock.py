"""The time of an app under test: it moves only when told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from math import isfinite
from typing import Any

from taskapp.engine.clock import Clock, Reading
from taskapp.errors.schedules import BadSchedule
from taskapp.errors.testing import BackwardsInTime, BadTime
from taskapp.schedules.times.parsing import parse_duration, parse_instant

Duration = str | float | timedelta
"""``"1h 30m"``, seconds, or a ``timedelta``."""
LONGEST_SECONDS = 100 * 365.25 * 86_400


class ManualClock(Clock):
    """The engine's clock, which here is also that of the app: whole milliseconds, set by ``move_to``."""

    def __init__(self, start_at: float) -> None:
        super().__init__()
        # Whole seconds: they survive the conversions between floats and texts unchanged.
        self._now_ms = int(start_at) * 1_000

    def move_to(self, now_ms: int) -> None:
        """Set the time; it never moves back."""
        self._now_ms = max(self._now_ms, now_ms)

    @property
    def now(self) -> float:
        """The time in Unix seconds."""
        return self._now_ms / 1_000

    def predicted_ms(self) -> int:
        """Return the time."""
        return self._now_ms

    def now_ms(self) -> int:
        """Return the time."""
        return self._now_ms

    def ahead_of_here_seconds(self) -> float:
        """Return 0: the app's clock is this one, too."""
        return 0.0

    def observe(self, reading: Reading, sent_ms: float, read_ms: float) -> int | None:  # noqa: ARG002 - no server has a time
        """Ignore the answer of a server."""
        return None

    def has_come(self, due_ms: int) -> bool:
        """Return whether it is ``due_ms``, which may be rounded up by one."""
        return due_ms <= self._now_ms + 1


def in_seconds(duration: Duration) -> float:
    """Return a duration in seconds, for ``advance``.

    Raises:
        BadTime: It is not a duration, or longer than a hundred years.
        BackwardsInTime: It is negative.
    """
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    else:
        seconds = _read("advance()", duration, parse_duration, "give '1h 30m', seconds, or a timedelta")
    if seconds < 0:
        raise BackwardsInTime(seconds)
    if seconds > LONGEST_SECONDS:
        raise BadTime("advance()", duration, "it is longer than a hundred years", "give less")
    return seconds


def as_instant(start: str | float | datetime) -> float:
    """Return Unix seconds; a text is an ISO 8601 time, in UTC if it has no offset.

    Raises:
        BadTime: ``start`` is not a time.
    """
    if isinstance(start, datetime):
        return start.timestamp()
    return _read("start", start, parse_instant, "give '2026-03-01T12:30', Unix seconds, or a datetime")


def _read(name: str, value: Any, read: Callable[[str], float], remedy: str) -> float:
    try:
        number = read(value) if isinstance(value, str) else float(value)
    except BadSchedule as error:
        raise BadTime(name, value, error.why, error.remedy) from None
    except (TypeError, ValueError):
        raise BadTime(name, value, f"it is of the type {type(value).__name__}", remedy) from None
    if not isfinite(number):
        raise BadTime(name, value, "it is not a finite number", remedy)
    return number
