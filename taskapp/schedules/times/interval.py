"""Due times independent of a calendar: intervals, and single instants."""

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
    """A fixed period of real time, counted from an anchor in both directions without drift.

    Args:
        seconds: The period, from 0.1 s to a hundred years, in whole milliseconds.
        anchor_at: One of the due times, in Unix seconds, rounded down to the millisecond.

    Raises:
        BadSchedule: The period or the anchor is invalid.
    """

    seconds: float
    anchor_at: float = 0.0
    _period_ms: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seconds = checked_number("interval", self.seconds)
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise BadSchedule("interval", self.seconds, "it is out of range", "give 0.1 s to 100 years, in seconds")
        period_ms = round(seconds * 1000)
        if abs(period_ms / 1000 - seconds) > 1e-9 * max(seconds, 1):
            raise BadSchedule(
                "interval", self.seconds, "it is not a whole number of milliseconds", f"give {period_ms / 1000:g}"
            )
        object.__setattr__(self, "seconds", period_ms / 1000)
        object.__setattr__(self, "anchor_at", checked_instant("anchor", self.anchor_at))
        object.__setattr__(self, "_period_ms", period_ms)

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant``; ``None`` if it is not before the year 9900."""
        anchor_ms = floor_ms(self.anchor_at)
        periods = (floor_ms(instant) - anchor_ms) // self._period_ms + 1
        due_at = (anchor_ms + periods * self._period_ms) / 1000
        return due_at if due_at < LATEST_AT else None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, from which ``when_from`` creates an equal object."""
        return {"kind": "interval", "seconds": self.seconds, "anchor_at": self.anchor_at}

    def __str__(self) -> str:
        anchor = f" from {utc_text(self.anchor_at)}" if self.anchor_at else ""
        return f"every {duration_text(self.seconds)}{anchor}"


@dataclass(frozen=True, slots=True)
class Once:
    """A single due time, in Unix seconds, rounded down to the millisecond.

    Raises:
        BadSchedule: ``at`` is not an instant between 1800 and 9900.
    """

    at: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", checked_instant("time", self.at))

    def after(self, instant: float) -> float | None:
        """Return the due time if it is strictly later than ``instant``, otherwise ``None``."""
        return self.at if floor_ms(instant) < floor_ms(self.at) else None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, from which ``when_from`` creates an equal object."""
        return {"kind": "once", "at": self.at}

    def __str__(self) -> str:
        return f"at {utc_text(self.at)}"
