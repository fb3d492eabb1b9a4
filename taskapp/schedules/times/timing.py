"""Due times within bounds: start, end and excluded dates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Protocol, TypeGuard, runtime_checkable

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times.instants import DAY_SECONDS, checked_instant, just_before
from taskapp.schedules.times.zones import check_zone, local_date, seconds_of, stretch_at

GIVE_UP_SECONDS = 3653 * DAY_SECONDS


@runtime_checkable
class When(Protocol):
    """Due times without bounds or exceptions: immutable, hashable, small."""

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant`` (Unix seconds); ``None`` if there is none."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, from which ``when_from`` creates an equal object."""


def zone_of(when: When, zone: str) -> str:
    """Return the time zone of ``when``: its own if it has one, otherwise ``zone``."""
    own = getattr(when, "zone", None)
    return own if isinstance(own, str) else zone


@dataclass(frozen=True, slots=True)
class Timing:
    """Due times within bounds.

    Args:
        when: The due times.
        start_at: First instant at which something may be due.
        end_at: First instant from which on nothing is due.
        excluded: Local dates without due times: dates, or pairs of first and last date. Stored as sorted pairs, with
            overlapping and adjacent ones merged.
        zone: Time zone of ``excluded`` if ``when`` has none of its own.

    Raises:
        BadSchedule: A bound is invalid, or the end is not after the start.
    """

    when: When
    start_at: float | None = None
    end_at: float | None = None
    excluded: tuple[tuple[date, date], ...] = ()
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if not isinstance(self.when, When):
            raise BadSchedule("when", self.when, "it has no due times", "give a Cron, an Interval or another When")
        check_zone(self.zone)
        for field, label in (("start_at", "start"), ("end_at", "end")):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, checked_instant(label, value))
        if self.start_at is not None and self.end_at is not None and self.end_at <= self.start_at:
            raise BadSchedule("end", self.end_at, f"it is not after the start, {self.start_at!r}", "give a later end")
        object.__setattr__(self, "excluded", _merged(self.excluded))

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant``; ``None`` if there is none.

        Also ``None`` if every due time within ten years of the first is excluded.
        """
        if self.start_at is not None:
            instant = max(instant, just_before(self.start_at))
        due_at = self.when.after(instant)
        give_up_at = None if due_at is None else due_at + GIVE_UP_SECONDS
        while due_at is not None and give_up_at is not None and due_at < give_up_at:
            if self.end_at is not None and due_at >= self.end_at:
                return None
            resume_at = self._excluded_until(due_at)
            if resume_at is None:
                return due_at
            due_at = self.when.after(just_before(resume_at))
        return None

    def between(self, first: float, last: float, limit: int) -> Iterator[float]:
        """Yield up to ``limit`` due times from ``first`` to before ``last``, in order."""
        due_at = self.after(just_before(first))
        for _ in range(limit):
            if due_at is None or due_at >= last:
                return
            yield due_at
            due_at = self.after(due_at)

    def _excluded_until(self, due_at: float) -> int | None:
        """Return the end of the excluded dates that ``due_at`` falls on, or an earlier change of the offset.

        ``None`` if ``due_at`` is not on an excluded date.
        """
        if not self.excluded:
            return None
        zone = zone_of(self.when, self.zone)
        day = local_date(zone, due_at)
        index = bisect_right(self.excluded, (day, date.max)) - 1
        if index < 0 or day > self.excluded[index][1]:
            return None
        stretch = stretch_at(zone, due_at)
        midnight = seconds_of(self.excluded[index][1]) + DAY_SECONDS
        return min(stretch.end_at, midnight - stretch.offset)


def _merged(excluded: object) -> tuple[tuple[date, date], ...]:
    if not isinstance(excluded, tuple | list):
        raise BadSchedule("excluded dates", excluded, "they are not a list", "give a list of dates or pairs of dates")
    merged: list[tuple[date, date]] = []
    for first, last in sorted(_pair(item) for item in excluded):
        if merged and (merged[-1][1] == date.max or first <= merged[-1][1] + timedelta(days=1)):
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)


def _pair(item: object) -> tuple[date, date]:
    first, last = item if isinstance(item, tuple | list) and len(item) == 2 else (item, item)
    if not (_is_date(first) and _is_date(last)):
        raise BadSchedule("excluded dates", item, "they are not dates", "give a date, or a pair of first and last date")
    if last < first:
        raise BadSchedule("excluded dates", item, "the last date is before the first", "swap them")
    return first, last


def _is_date(value: object) -> TypeGuard[date]:
    return isinstance(value, date) and not isinstance(value, datetime)
