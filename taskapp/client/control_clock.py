"""The logical clock in remote-control commands."""

from __future__ import annotations

from typing import Any

from kombu.clocks import LamportClock

CLOCK_MOST = 2**60


class ControlClock(LamportClock):
    """The logical clock of an app, protected against invalid values in commands."""

    def adjust(self, other: Any) -> Any:
        """Adjust to another clock; ignore an invalid value."""
        is_time = isinstance(other, int) and not isinstance(other, bool) and 0 <= other < CLOCK_MOST
        return super().adjust(other if is_time else 0)
