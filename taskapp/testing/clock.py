"""The time of an app under test: it moves only when told."""

from __future__ import annotations

from datetime import datetime, timedelta

from taskapp.engine.clock import Clock, Reading
from taskapp.errors.testing import BackwardsInTime
from taskapp.schedules.times.parsing import parse_duration, parse_instant

Duration = str | float | timedelta
"""``"1h 30m"``, seconds, or a ``timedelta``."""


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
    """Return a duration in seconds.

    Raises:
        BadSchedule: The text is not a duration.
        BackwardsInTime: It is negative.
    """
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    else:
        seconds = parse_duration(duration) if isinstance(duration, str) else float(duration)
    if seconds < 0:
        raise BackwardsInTime(seconds)
    return seconds


def as_instant(start: str | float | datetime) -> float:
    """Return Unix seconds; a text is an ISO 8601 time, in UTC if it has no offset."""
    if isinstance(start, datetime):
        return start.timestamp()
    return parse_instant(start) if isinstance(start, str) else float(start)
