"""Due times that no calendar has a part in: intervals, and one time only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times.instants import (
    DAY_SECONDS,
    LATEST_AT,
    checked_instant,
    checked_number,
    duration_text,
    floor_ms,
    utc_text,
)

MIN_SECONDS = 0.1
MAX_SECONDS = 100 * 366 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many seconds of real time, counted from an anchor in both directions; never drifts.

    Args:
        seconds: The period, from 0.1 s to a hundred years, in whole milliseconds.
        anchor_at: One due time, in Unix seconds; taken to the millisecond. Others lie before and after it.

    Raises:
        BadSchedule: The period or the anchor cannot be used.
    """

    seconds: float
    anchor_at: float = 0.0
    _period_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seconds = checked_number("interval", self.seconds)
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise BadSchedule("interval", self.seconds, "it is not from 0.1 s to 100 years", "give seconds between")
        period_ms = round(seconds * 1000)
        if abs(period_ms / 1000 - seconds) > 1e-9 * max(seconds, 1):
            raise BadSchedule(
                "interval", self.seconds, "it is no whole number of milliseconds", f"give {period_ms / 1000:g}"
            )
        object.__setattr__(self, "seconds", period_ms / 1000)
        object.__setattr__(self, "anchor_at", checked_instant("anchor", self.anchor_at))
        object.__setattr__(self, "_period_ms", period_ms)

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant``; ``None`` from the year 9900."""
        anchor_ms = floor_ms(self.anchor_at)
        periods = (floor_ms(instant) - anchor_ms) // self._period_ms + 1
        due_at = (anchor_ms + periods * self._period_ms) / 1000
        return due_at if due_at < LATEST_AT else None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``when_from`` makes an equal one of."""
        return {"kind": "interval", "seconds": self.seconds, "anchor_at": self.anchor_at}

    def __str__(self) -> str:
        anchor = f" from {utc_text(self.anchor_at)}" if self.anchor_at else ""
        return f"every {duration_text(self.seconds)}{anchor}"


@dataclass(frozen=True, slots=True)
class Once:
    """One due time, in Unix seconds, taken to the millisecond.

    Raises:
        BadSchedule: It is no instant between 1800 and 9900.
    """

    at: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", checked_instant("time", self.at))

    def after(self, instant: float) -> float | None:
        """Return the due time where it is strictly later than ``instant``."""
        return self.at if floor_ms(instant) < floor_ms(self.at) else None

    def as_dict(self) -> dict[str, Any]:
        """Return what ``when_from`` makes an equal one of."""
        return {"kind": "once", "at": self.at}

    def __str__(self) -> str:
        return f"at {utc_text(self.at)}"
