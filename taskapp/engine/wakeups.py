"""Detects that a thread woke up late, usually because its whole process was stopped."""

from __future__ import annotations

from time import monotonic

LATE_SECONDS = 0.5


class Wakeups:
    """The expected time of one thread's next wake-up; used by that thread alone."""

    def __init__(self) -> None:
        self._due = monotonic()
        self._was_late = False

    def expect(self, seconds: float) -> None:
        """Record that the thread will wait ``seconds``."""
        self._due = monotonic() + seconds

    def is_late(self) -> bool:
        """Return whether it has just woken late, so that what it watches gets a turn before it is judged.

        Never returns ``True`` twice in a row: on a machine that is always late nothing would ever be judged.
        """
        self._was_late = monotonic() > self._due + LATE_SECONDS and not self._was_late
        return self._was_late
