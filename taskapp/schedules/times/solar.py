"""Solar due times, such as sunrise."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from taskapp.errors import did_you_mean
from taskapp.errors.schedules import BadSchedule, SolarUnavailable
from taskapp.schedules.times.instants import DAY_SECONDS, checked_number, floor_ms

SEARCH_DAYS = 400
"""How far ahead to search for an event: near the poles, some occur once a year."""


class _Event(NamedTuple):
    search: str
    horizon: str
    use_center: bool


EVENTS = {
    "dawn_astronomical": _Event("next_rising", "-18", use_center=True),
    "dawn_nautical": _Event("next_rising", "-12", use_center=True),
    "dawn_civil": _Event("next_rising", "-6", use_center=True),
    "sunrise": _Event("next_rising", "-0:34", use_center=False),
    "solar_noon": _Event("next_transit", "0", use_center=False),
    "sunset": _Event("next_setting", "-0:34", use_center=False),
    "dusk_civil": _Event("next_setting", "-6", use_center=True),
    "dusk_nautical": _Event("next_setting", "-12", use_center=True),
    "dusk_astronomical": _Event("next_setting", "-18", use_center=True),
}
"""Celery's events, with Celery's horizons in degrees."""


@dataclass(frozen=True, slots=True)
class Solar:
    """A solar event at a place, as in Celery's ``solar``, precise to the second.

    Args:
        event: One of ``EVENTS``.
        latitude: Degrees north, -90 to 90.
        longitude: Degrees east, -180 to 180.

    Raises:
        BadSchedule: There is no such event or no such place.
        SolarUnavailable: The package that computes them is not installed.
    """

    event: str
    latitude: float
    longitude: float

    def __post_init__(self) -> None:
        if not isinstance(self.event, str) or self.event not in EVENTS:
            close = did_you_mean(str(self.event)[:40], EVENTS).removeprefix("; ")
            remedy = close or f"give one of {', '.join(EVENTS)}"
            raise BadSchedule("solar event", self.event, "there is no such event", remedy)
        object.__setattr__(self, "latitude", _degrees("latitude", self.latitude, 90))
        object.__setattr__(self, "longitude", _degrees("longitude", self.longitude, 180))
        _ephem()

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant``; ``None`` if there is none within 400 days.

        An event is computed from the start of its UTC day, independent of ``instant``, so that the result is always
        the same second.
        """
        day = floor_ms(instant) // 1000 // DAY_SECONDS
        for searched in range(day, day + SEARCH_DAYS):
            for due_at in _on_day(self.event, self.latitude, self.longitude, searched):
                if due_at > instant:
                    return float(due_at)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, from which ``when_from`` creates an equal object."""
        return {"kind": "solar", "event": self.event, "latitude": self.latitude, "longitude": self.longitude}

    def __str__(self) -> str:
        return f"{self.event} at {self.latitude:.10g},{self.longitude:.10g}"


def _degrees(field: str, value: object, limit: int) -> float:
    degrees = checked_number(field, value)
    if not -limit <= degrees <= limit:
        raise BadSchedule(field, value, "there is no such place", f"give degrees from -{limit} to {limit}")
    return degrees


def _ephem() -> Any:
    try:
        import ephem
    except ImportError as error:
        raise SolarUnavailable from error
    return ephem


@lru_cache(maxsize=4096)
def _on_day(event: str, latitude: float, longitude: float, day: int) -> tuple[int, ...]:
    """Return the times of the event on a UTC day (Unix seconds): mostly one, near the poles also none or two."""
    ephem = _ephem()
    search, horizon, use_center = EVENTS[event]
    observer = ephem.Observer()
    observer.lat, observer.lon = str(latitude), str(longitude)
    observer.elev, observer.pressure, observer.horizon = 0, 0, horizon
    terms = {"use_center": True} if use_center else {}
    start_at, end_at, found = day * DAY_SECONDS, (day + 1) * DAY_SECONDS, []
    while start_at < end_at:
        start = ephem.Date(datetime.fromtimestamp(start_at, UTC).replace(tzinfo=None))
        try:
            moment = getattr(observer, search)(ephem.Sun(), start=start, **terms)
        except ephem.CircumpolarError:
            break
        due_at = int(ephem.Date(moment).datetime().replace(tzinfo=UTC).timestamp())
        if due_at >= end_at:
            break
        found.append(due_at)
        start_at = due_at + DAY_SECONDS // 2
    return tuple(found)
