"""Parsers for due times, instants and durations as users write them."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal

from taskapp.errors import did_you_mean
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times.cron import Cron
from taskapp.schedules.times.instants import checked_instant
from taskapp.schedules.times.interval import Interval, Once
from taskapp.schedules.times.solar import EVENTS, Solar
from taskapp.schedules.times.timing import When
from taskapp.schedules.times.zones import check_zone, instant_of, seconds_of

_MAX_LENGTH = 1000
_UNIT_MS = {
    "ms": 1,
    "millisecond": 1,
    "s": 1000,
    "sec": 1000,
    "second": 1000,
    "m": 60_000,
    "min": 60_000,
    "minute": 60_000,
    "h": 3_600_000,
    "hour": 3_600_000,
    "d": 86_400_000,
    "day": 86_400_000,
    "w": 604_800_000,
    "week": 604_800_000,
}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([a-z]{1,12})\s*")
_EVERY = re.compile(r"every\s+(?P<duration>.+?)(?:\s+from\s+(?P<anchor>\S.*))?", re.IGNORECASE)
_AT = re.compile(r"at\s+(?P<instant>\S.*)", re.IGNORECASE)
_SOLAR = re.compile(r"(?P<event>[A-Za-z_]+)\s+at\s+(?P<latitude>[^\s,]+)\s*,\s*(?P<longitude>[^\s,]+)")


def parse_when(text: str, zone: str = "UTC") -> When:
    """Parse due times; local times are of ``zone``.

    Accepts ``0 3 * * MON-FRI`` or ``@daily``, ``every 90s``, ``every 1h30m from 2026-01-01T00:00``,
    ``at 2026-12-01T09:00`` and ``sunrise at 52.5,13.4``.

    Raises:
        BadSchedule: ``text`` or ``zone`` is invalid.
        SolarUnavailable: ``text`` names a solar event, and the package that computes it is not installed.
    """
    text = text.strip()
    if len(text) > _MAX_LENGTH:
        raise BadSchedule("when", text, f"it is longer than {_MAX_LENGTH} characters", "shorten it")
    check_zone(zone)
    if every := _EVERY.fullmatch(text):
        anchor = every["anchor"]
        return Interval(parse_duration(every["duration"]), parse_instant(anchor, zone) if anchor else 0.0)
    if at := _AT.fullmatch(text):
        return Once(parse_instant(at["instant"], zone))
    if solar := _SOLAR.fullmatch(text):
        event = solar["event"].lower()
        return Solar(event, _degrees("latitude", solar["latitude"]), _degrees("longitude", solar["longitude"]))
    _check_first_word(text)
    return Cron(text, zone)


def parse_instant(text: str, zone: str = "UTC") -> float:
    """Parse an ISO 8601 time into Unix seconds.

    A time without offset is local time of ``zone``: if it does not exist, the first instant after the gap; if it
    occurs twice, the first. A date without time means midnight.

    Raises:
        BadSchedule: ``text`` is not an ISO 8601 time, or is not between 1800 and 9900.
    """
    check_zone(zone)
    try:
        moment = datetime.fromisoformat(text.strip().upper())
    except ValueError as error:
        raise BadSchedule("time", text, "it is not an ISO 8601 time", "write it like '2026-12-01T09:00'") from error
    try:
        at = moment.timestamp() if moment.tzinfo is not None else _local_instant(moment, zone)
    except (OverflowError, ValueError) as error:
        raise BadSchedule("time", text, "it is out of range", "give a time between 1800 and 9900") from error
    return checked_instant("time", at)


def parse_duration(text: str) -> float:
    """Parse a duration such as ``90s``, ``1h30m``, ``1.5 h``, ``2 days`` or ``500ms`` into seconds.

    Raises:
        BadSchedule: ``text`` is not a duration.
    """
    lowered, ms, position = text.strip().lower()[:_MAX_LENGTH], Decimal(0), 0
    while part := _PART.match(lowered, position):
        unit = part[2].removesuffix("s") if len(part[2]) > 3 else part[2]
        if unit not in _UNIT_MS:
            close = did_you_mean(part[2], _UNIT_MS).removeprefix("; ")
            raise BadSchedule("duration", text, f"{part[2]!r} is not a unit", close or "give ms, s, m, h, d or w")
        ms += Decimal(part[1]) * _UNIT_MS[unit]
        position = part.end()
    if position == 0 or position < len(lowered):
        raise BadSchedule(
            "duration", text, "it does not consist of numbers with units", "write it like '90s' or '1h30m'"
        )
    return float(ms) / 1000


def _local_instant(moment: datetime, zone: str) -> float:
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second
    at = instant_of(zone, seconds_of(date(moment.year, moment.month, moment.day)) + seconds)
    return at + moment.microsecond / 1_000_000


def _degrees(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadSchedule(field, text, "it is not a number", "give degrees, such as 52.5") from error


def _check_first_word(text: str) -> None:
    word = text.split(maxsplit=1)[0].lower() if text else ""
    if word.isalpha() or "_" in word:
        close = did_you_mean(word[:40], ("every", "at", *EVENTS)).removeprefix("; ")
        remedy = "write it like '0 3 * * MON-FRI', 'every 90s', 'at 2026-12-01T09:00' or 'sunrise at 52.5,13.4'"
        raise BadSchedule("when", text, "it is not a cron expression and starts with no known word", close or remedy)
