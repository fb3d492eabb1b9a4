"""Instants as numbers: Unix seconds in UTC, on a grid of whole milliseconds.

Every due time lies on that grid, so that one stored in milliseconds and read back is still the same due time, and the
one after it is the next.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from taskapp.errors.schedules import BadSchedule

EARLIEST_AT = int(datetime(1800, 1, 1, tzinfo=UTC).timestamp())
"""Nothing is due before this; earlier searches start here."""
LATEST_AT = int(datetime(9900, 1, 1, tzinfo=UTC).timestamp())
"""Nothing is due at or after this."""

DAY_SECONDS = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = (("d", DAY_SECONDS * 1000), ("h", 3_600_000), ("min", 60_000))


def floor_ms(instant: float) -> int:
    """Return the last whole millisecond at or before ``instant``; outside 1800 to 9900 the nearest end."""
    bounded = min(max(instant, EARLIEST_AT), LATEST_AT)
    nearest_ms = round(bounded * 1000)
    return nearest_ms if nearest_ms / 1000 <= bounded else nearest_ms - 1


def just_before(instant: float) -> float:
    """Return the last whole millisecond before ``instant``: due times later than it are exactly those from there on."""
    floored_ms = floor_ms(instant)
    return (floored_ms - 1 if floored_ms / 1000 >= instant else floored_ms) / 1000


def checked_instant(field: str, value: object) -> float:
    """Return ``value``, rounded down to the millisecond.

    Raises:
        BadSchedule: ``value`` is not an instant between 1800 and 9900.
    """
    number = checked_number(field, value)
    if not EARLIEST_AT < number < LATEST_AT:
        raise BadSchedule(field, value, "it is not between the years 1800 and 9900", "give Unix seconds in UTC")
    return floor_ms(number) / 1000


def checked_number(field: str, value: object) -> float:
    """Return ``value`` as a float.

    Raises:
        BadSchedule: ``value`` is not a finite number, or is a boolean.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise BadSchedule(field, value, "it is not a finite number", "give a number")
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def utc_text(instant: float) -> str:
    """Return ``instant`` as ``2026-01-01T00:00:00Z``, with milliseconds if it has any."""
    ms = floor_ms(instant)
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def duration_text(seconds: float) -> str:
    """Return a length of time as ``1 h 30 min``; below two minutes as ``90 s`` or ``0.5 s``."""
    left = round(seconds * 1000)
    parts = []
    for unit, unit_ms in _UNITS if left >= 120_000 or left % 60_000 == 0 else ():
        count, left = divmod(left, unit_ms)
        if count:
            parts.append(f"{count} {unit}")
    if left or not parts:
        parts.append(f"{left / 1000:.3f}".rstrip("0").rstrip(".") + " s")
    return " ".join(parts)
