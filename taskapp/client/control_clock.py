"""The logical clock that commands of remote control carry."""

from __future__ import annotations

from typing import Any

from kombu.clocks import LamportClock

CLOCK_MOST = 2**60


class ControlClock(LamportClock):
    """The logical clock of an app, which no command sets to what is no time."""

    def adjust(self, other: Any) -> Any:
        """Take note of another's clock; of what is none, do not."""
        is_time = isinstance(other, int) and not isinstance(other, bool) and 0 <= other < CLOCK_MOST
        return super().adjust(other if is_time else 0)
