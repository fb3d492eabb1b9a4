"""Schedules in words: their times, and instants as clocks in their zones show them."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from taskapp.sanitize import sanitize
from taskapp.schedules.schedule import Schedule

NOTHING = "\N{EN DASH}"


def when_text(schedule: Schedule) -> str:
    """Return its times, without the zone they are in."""
    return sanitize(str(schedule.when).replace(f" {schedule.local_zone}", "", 1))


def local_text(instant: float | None, zone: str, *, weekday: bool = False) -> str:
    """Return an instant as clocks in ``zone`` show it, with their offset."""
    if instant is None:
        return NOTHING
    local = moment(instant, zone)
    text = local.isoformat(" ", timespec="milliseconds" if local.microsecond else "seconds")
    text = f"{text[:-6]} {text[-6:]}" if text[-6] in "+-" else text
    return f"{local:%a} {text}" if weekday else text


def moment(instant: float, zone: str) -> datetime:
    """Return an instant, to the millisecond, in ``zone``; in UTC if that is none."""
    return datetime.fromtimestamp(round(instant * 1_000) / 1_000, _zone(zone))


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")  # of one that is broken
