"""Time zones as stretches of constant UTC offset, and conversions between local time and instants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from taskapp.errors import did_you_mean
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times.instants import DAY_SECONDS, EARLIEST_AT, LATEST_AT, duration_text

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_WINDOW_BITS = 25
"""Offset changes are computed for 2**25 seconds at a time, a little more than a year, and cached."""
_PROBE_SECONDS = DAY_SECONDS // 4
"""Two changes within this time that cancel each other out would be missed; tzdata has none."""


class Stretch(NamedTuple):
    """Instants from ``start_at`` to before ``end_at`` with the same offset; ``before`` is the offset just before."""

    start_at: int
    end_at: int
    offset: int
    before: int


def check_zone(key: object) -> None:
    """Check that ``key`` is the name of a time zone.

    Raises:
        BadSchedule: It is not; suggests the most similar name.
    """
    if not isinstance(key, str):
        raise BadSchedule("time zone", key, "it is not a name", "use a name like 'Europe/Berlin'")
    try:
        known = bool(key) and not key.startswith(("right/", "posix/")) and ZoneInfo(key) is not None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = False
    if not known:
        close = did_you_mean(key[:64], available_timezones()).removeprefix("; ")
        raise BadSchedule("time zone", key, "there is no such zone", close or "use a name like 'Europe/Berlin'")


def stretches(key: str, instant: int) -> Iterator[Stretch]:
    """Yield the stretch that contains ``instant`` and those that follow, up to the year 9900.

    Consecutive stretches may have the same offset.
    """
    index = max(instant, EARLIEST_AT) >> _WINDOW_BITS
    while index << _WINDOW_BITS < LATEST_AT:
        for stretch in _window(key, index):
            if stretch.end_at > instant:
                yield stretch
        index += 1


def stretch_at(key: str, instant: float) -> Stretch:
    """Return the stretch that contains ``instant``; outside 1800 to 9900, the first or the last."""
    return next(stretches(key, int(min(max(instant, EARLIEST_AT), LATEST_AT - 1) // 1)))


def instant_of(key: str, local_seconds: int) -> int:
    """Return the first instant at which clocks show a local time, given in seconds since 1970-01-01T00:00 local time.

    For a local time that does not exist, return the instant just after the gap.
    """
    for stretch in stretches(key, local_seconds - 2 * DAY_SECONDS):
        due = max(local_seconds - stretch.offset, stretch.start_at)
        if due < stretch.end_at:
            return due
    return LATEST_AT


def local_date(key: str, instant: float) -> date:
    """Return the local date in zone ``key`` at ``instant``."""
    local_seconds = instant + stretch_at(key, instant).offset
    return date.fromordinal(int(local_seconds // DAY_SECONDS) + _EPOCH_ORDINAL)


def seconds_of(day: date) -> int:
    """Return the start of a date in seconds since 1970-01-01T00:00, both in local time."""
    return (day.toordinal() - _EPOCH_ORDINAL) * DAY_SECONDS


def offset_change(instant: float, previous_instant: float, zone: str) -> str | None:
    """Return how clocks changed between two instants, such as ``clocks go forward 1 h``; ``None`` if they did not.

    Compares only the two offsets: changes that cancel each other out are not reported.
    """
    gained = stretch_at(zone, instant).offset - stretch_at(zone, previous_instant).offset
    if not gained:
        return None
    return f"clocks go {'forward' if gained > 0 else 'back'} {duration_text(abs(gained))}"


@lru_cache(maxsize=8192)
def _window(key: str, index: int) -> tuple[Stretch, ...]:
    zone = ZoneInfo(key)
    start_at, stop_at = index << _WINDOW_BITS, (index + 1) << _WINDOW_BITS
    at, before = start_at, _offset(zone, start_at - 1)
    found = []
    while at < stop_at:
        offset = _offset(zone, at)
        end_at = _next_change(zone, at, stop_at, offset)
        found.append(Stretch(at, end_at, offset, before))
        at, before = end_at, offset
    return tuple(found)


def _next_change(zone: ZoneInfo, from_at: int, stop_at: int, offset: int) -> int:
    """Return the first instant after ``from_at`` with another offset, or ``stop_at``."""
    low = from_at
    while low < stop_at:
        high = min(low + _PROBE_SECONDS, stop_at)
        if _offset(zone, high) != offset:
            return _first_with_another(zone, low, high, offset)
        low = high
    return stop_at


def _first_with_another(zone: ZoneInfo, low: int, high: int, offset: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
    return high


def _offset(zone: ZoneInfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0
