"""When a schedule is due, with what bounds it: start, end, and dates left out."""

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
    """Due times without end or exception: immutable, hashable, small."""

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant`` (Unix seconds); ``None``: never again."""

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold and ``when_from`` makes an equal one of."""


def zone_of(when: When, zone: str) -> str:
    """Return the name of the zone whose dates and clocks ``when`` goes by: its own, or else ``zone``."""
    own = getattr(when, "zone", None)
    return own if isinstance(own, str) else zone


@dataclass(frozen=True, slots=True)
class Timing:
    """Due times within bounds.

    Args:
        when: The due times.
        start_at: Nothing is due before this instant; on it, yes.
        end_at: Nothing is due from this instant on; on it, no.
        excluded: Local dates nothing is due on: dates, or pairs of a first and a last date. Kept sorted, as
            pairs, those that overlap or touch as one.
        zone: Whose dates are meant where ``when`` has no zone of its own.

    Raises:
        BadSchedule: A bound cannot be used, or the end is not after the start.
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
            raise BadSchedule("end", self.end_at, f"it is not after the start, {self.start_at!r}", "give a later one")
        object.__setattr__(self, "excluded", _merged(self.excluded))

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant``; ``None``: never again.

        ``None`` too where every due time is excluded for ten years from the first of them.
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
        """Yield the due times from ``first`` to before ``last``, in order; at most ``limit``."""
        due_at = self.after(just_before(first))
        for _ in range(limit):
            if due_at is None or due_at >= last:
                return
            yield due_at
            due_at = self.after(due_at)

    def _excluded_until(self, due_at: float) -> int | None:
        """Return up to when clocks show excluded dates without a break; ``None`` where ``due_at`` is not on one."""
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
        raise BadSchedule("excluded dates", excluded, "they are no list", "give a list of dates, or pairs of dates")
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
        raise BadSchedule("excluded dates", item, "they are no dates", "give a date, or a pair of first and last date")
    if last < first:
        raise BadSchedule("excluded dates", item, "the last date is before the first", "swap them")
    return first, last


def _is_date(value: object) -> TypeGuard[date]:
    return isinstance(value, date) and not isinstance(value, datetime)
