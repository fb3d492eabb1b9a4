"""Calendars: named sets of days on which the schedules that follow them have no due times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date

from taskapp.errors.schedules import BadSchedule
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from taskapp.schedules.schedule import days_from

Days = tuple[tuple[date, date], ...]


class Calendars:
    """The calendars of a deployment; to change one, use ``Schedules.set_calendar``."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link, self._key = link, Keys(prefix)("calendars")

    def all(self) -> dict[str, list[str]]:
        """Return all calendars by name, with their days as text, see ``days_from``."""
        found = self._link.command("HGETALL", self._key)
        return {name.decode(): json.loads(days) for name, days in zip(found[::2], found[1::2], strict=True)}

    def days(self, name: str | None) -> Days:
        """Return the days of a calendar; an empty tuple if ``name`` is ``None``.

        Raises:
            BadSchedule: No calendar has that name.
        """
        if name is None:
            return ()
        days = self._link.command("HGET", self._key, name)
        if days is None:
            remedy = "add it with: taskapp schedules calendar NAME DAY…"
            raise BadSchedule("calendar", name, "no calendar has that name", remedy)
        return days_from(json.loads(days))

    def put(self, name: str, days: Sequence[str]) -> None:
        """Store a calendar; use ``Schedules.set_calendar``, which also updates the schedules that follow it.

        Raises:
            BadSchedule: An entry of ``days`` is not a day, see ``days_from``.
        """
        days_from(days)
        self._link.command("HSET", self._key, name, json.dumps(days))

    def drop(self, name: str) -> None:
        """Remove a calendar."""
        self._link.command("HDEL", self._key, name)
