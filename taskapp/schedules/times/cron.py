"""Calendar-based due times: cron expressions, and Celery's ``crontab``.

When clocks change, the hour field decides:

- Fixed hours (``0 3 * * *``): a local time that does not exist is due once, at the first instant after the gap; a
  local time that occurs twice is due the first time only, or both times with ``twice``.
- Wildcard hours (the field starts with ``*`` or names all 24): due whenever clocks show a matching time. So minutes
  follow real time: ``*/15 * * * *`` is due every 15 minutes through both changes. ``30 */2 * * *`` has no 02:30 in
  spring and two in autumn.

Debian's cron considers the minute field as well: there ``*/5 2 * * *`` does not run in spring and runs 24 times in
autumn; here it is due once and 12 times. Several local times that fall on the same instant are due once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times.fields import Fields
from taskapp.schedules.times.grammar import celery_fields, cron_fields
from taskapp.schedules.times.instants import LATEST_AT, floor_ms
from taskapp.schedules.times.zones import Stretch, check_zone, stretches


class Change(Enum):
    """How a cron behaves when clocks change."""

    REAL_TIME = "real time"
    ONCE = "once"
    TWICE = "twice"

    def local_start(self, stretch: Stretch) -> int:
        """Return the first local time that belongs to a stretch.

        A local time earlier than clocks show at its start is due at its start.
        """
        if self is Change.REAL_TIME:
            return stretch.start_at + stretch.offset
        if self is Change.ONCE:
            return stretch.start_at + stretch.before
        return stretch.start_at + min(stretch.before, stretch.offset)


def first_due(fields: Fields, zone: str, change: Change, instant: float) -> float | None:
    """Return the first due time strictly later than ``instant``; ``None`` if there is none before the year 9900."""
    earliest_at = floor_ms(instant) // 1000 + 1
    searched_from, found = 1, 0
    for stretch in stretches(zone, earliest_at):
        local = change.local_start(stretch)
        if earliest_at > stretch.start_at:
            local = max(local, earliest_at + stretch.offset)
        if not searched_from <= local <= found:
            answer = fields.first(local)
            if answer is None:
                return None
            searched_from, found = local, answer
        due_at = max(found - stretch.offset, stretch.start_at)
        if due_at < min(stretch.end_at, LATEST_AT):
            return float(due_at)
    return None


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression with the semantics of Vixie cron, in a time zone.

    Five fields, or six with seconds first; names, lists, ranges, steps; ``L``, ``L-3``, ``15W`` and ``LW`` as day
    of month; ``5L`` and ``MON#2`` as weekday; Sunday is 0 or 7; macros such as ``@daily``. If both day of month
    and weekday are restricted (neither starts with ``*`` or is ``?``), a day needs to match only one of them.

    Args:
        expression: The cron expression.
        zone: Name of the time zone.
        twice: Whether a local time that occurs twice is due both times; with wildcard hours it always is.

    Raises:
        BadSchedule: The expression or the zone is invalid, or no year has such a day.
    """

    expression: str
    zone: str = "UTC"
    twice: bool = False
    _fields: Fields = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise BadSchedule("cron", self.expression, "it is not text", "write it like '0 3 * * *'")
        if not isinstance(self.twice, bool):
            raise BadSchedule("twice", self.twice, "it is not a boolean", "give true or false")
        check_zone(self.zone)
        object.__setattr__(self, "expression", " ".join(self.expression.split()))
        object.__setattr__(self, "_fields", cron_fields(self.expression))

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant``; ``None`` if there is none before the year 9900."""
        return first_due(self._fields, self.zone, _change(self._fields, twice=self.twice), instant)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, from which ``when_from`` creates an equal object."""
        return {"kind": "cron", "expression": self.expression, "zone": self.zone, "twice": self.twice}

    def __str__(self) -> str:
        return f"{self.expression} {self.zone}{' (twice when clocks go back)' if self.twice else ''}"


@dataclass(frozen=True, slots=True)
class Crontab:
    """Celery's ``crontab`` in a time zone: fields in Celery's syntax, all of which must match.

    When clocks change, it behaves like ``Cron``.

    Raises:
        BadSchedule: A field or the zone is invalid, or no year has such a day.
    """

    minute: str = "*"
    hour: str = "*"
    day_of_month: str = "*"
    month_of_year: str = "*"
    day_of_week: str = "*"
    zone: str = "UTC"
    _fields: Fields = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value in zip(("minute", "hour", "day of month", "month", "weekday"), self._texts(), strict=True):
            if not isinstance(value, str) or len(value) > 400:
                raise BadSchedule(name, value, "it is not text of up to 400 characters", "write it like '*/10'")
        check_zone(self.zone)
        object.__setattr__(self, "_fields", celery_fields(*self._texts()))

    def after(self, instant: float) -> float | None:
        """Return the first due time strictly later than ``instant``; ``None`` if there is none before the year 9900."""
        return first_due(self._fields, self.zone, _change(self._fields, twice=False), instant)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, from which ``when_from`` creates an equal object."""
        return {
            "kind": "crontab",
            "minute": self.minute,
            "hour": self.hour,
            "day_of_month": self.day_of_month,
            "month_of_year": self.month_of_year,
            "day_of_week": self.day_of_week,
            "zone": self.zone,
        }

    def __str__(self) -> str:
        return f"crontab {' '.join(self._texts())} {self.zone}"

    def _texts(self) -> tuple[str, str, str, str, str]:
        return self.minute, self.hour, self.day_of_month, self.month_of_year, self.day_of_week


def _change(fields: Fields, *, twice: bool) -> Change:
    if fields.real_time:
        return Change.REAL_TIME
    return Change.TWICE if twice else Change.ONCE
