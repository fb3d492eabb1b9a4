"""Text forms of schedules' times, and of instants in local time."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from taskapp.sanitize import sanitize
from taskapp.schedules.schedule import Schedule

NOTHING = "\N{EN DASH}"


def when_text(schedule: Schedule) -> str:
    """Return the times of ``schedule`` as text, without their zone."""
    return sanitize(str(schedule.when).replace(f" {schedule.local_zone}", "", 1))


def local_text(instant: float | None, zone: str, *, weekday: bool = False) -> str:
    """Return an instant in local time of ``zone``, with its UTC offset; an en dash for ``None``."""
    if instant is None:
        return NOTHING
    local = moment(instant, zone)
    text = local.isoformat(" ", timespec="milliseconds" if local.microsecond else "seconds")
    text = f"{text[:-6]} {text[-6:]}" if text[-6] in "+-" else text
    return f"{local:%a} {text}" if weekday else text


def moment(instant: float, zone: str) -> datetime:
    """Return an instant, rounded to milliseconds, in ``zone``; in UTC if the zone is unknown."""
    return datetime.fromtimestamp(round(instant * 1_000) / 1_000, _zone(zone))


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")  # the zone of a broken schedule
