"""Local times that match a cron, computed with bit arithmetic and independent of time zones.

Local times are seconds since 1970-01-01T00:00 local time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from taskapp.schedules.times.instants import DAY_SECONDS

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LAST_YEAR = 9998
_CYCLE_MONTHS = 400 * 12
"""The Gregorian calendar repeats after this many months: a rule without a matching day until then has none."""
_FIVE_WEEKS = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28


class Month(NamedTuple):
    """A month of a year: its number of days, and the weekday of its first day (Sunday is 0)."""

    length: int
    first_weekday: int

    def all_days(self) -> int:
        """Return a bit mask of all days; the bit of the 1st is ``1 << 1``."""
        return (1 << self.length + 1) - 2

    def weekday(self, day: int) -> int:
        """Return the weekday of ``day``; Sunday is 0."""
        return (self.first_weekday + day - 1) % 7

    def days_on(self, weekdays: int) -> int:
        """Return a bit mask of the days that fall on ``weekdays`` (bit 0 is Sunday)."""
        turned = (weekdays >> self.first_weekday | weekdays << 7 - self.first_weekday) & 0b111_1111
        return turned * _FIVE_WEEKS << 1 & self.all_days()


class Rule(NamedTuple):
    """A rule for a day that depends on the month; ``number`` and ``weekday`` are parameters of its ``kind``."""

    kind: str
    number: int = 0
    weekday: int = 0

    def day(self, month: Month) -> int:
        """Return the day of this month, or 0 or less if the month has no such day."""
        match self.kind:
            case "last":
                return month.length - self.number
            case "nearest":
                return _nearest_workday(self.number, month)
            case "last workday":
                return _nearest_workday(month.length, month)
            case "last weekday":
                return month.length - (month.weekday(month.length) - self.weekday) % 7
            case _:
                return _nth_weekday(self.number, self.weekday, month)


def _nearest_workday(day: int, month: Month) -> int:
    """Return the day from Monday to Friday nearest to ``day`` in the same month; 0 if the month has no ``day``."""
    if day > month.length:
        return 0
    weekday = month.weekday(day)
    if weekday == 6:
        return day - 1 if day > 1 else 3
    if weekday == 0:
        return day + 1 if day < month.length else day - 2
    return day


def _nth_weekday(count: int, weekday: int, month: Month) -> int:
    day = 1 + (weekday - month.first_weekday) % 7 + 7 * (count - 1)
    return day if day <= month.length else 0


@dataclass(frozen=True, slots=True)
class Days:
    """Matching days: bit masks of months, days of the month and weekdays, and rules for days that depend on the month.

    With ``either``, a day needs to match only one of day of month and weekday.
    """

    months: int
    monthdays: int
    weekdays: int
    monthday_rules: tuple[Rule, ...] = ()
    weekday_rules: tuple[Rule, ...] = ()
    either: bool = False

    def has(self, ordinal: int) -> bool:
        """Return whether the day with this ordinal matches."""
        day = date.fromordinal(ordinal)
        return bool(self.months >> day.month & 1 and self._of(day.year, day.month) >> day.day & 1)

    def first(self, ordinal: int) -> int | None:
        """Return the ordinal of the first matching day from ``ordinal`` on; ``None`` if none up to the year 9998."""
        if ordinal > _LAST_ORDINAL:
            return None
        start = date.fromordinal(ordinal)
        month, day = start.year * 12 + start.month - 1, start.day
        for month_index in range(month, min(month + _CYCLE_MONTHS, _LAST_YEAR * 12 + 11) + 1):
            year, index = divmod(month_index, 12)
            if self.months >> index + 1 & 1:
                found = _lowest(self._of(year, index + 1), day)
                if found >= 0:
                    return date(year, index + 1, found).toordinal()
            day = 1
        return None

    def _of(self, year: int, month_number: int) -> int:
        month = _month(year, month_number)
        by_date = self.monthdays & month.all_days() | _bits(self.monthday_rules, month)
        by_weekday = month.days_on(self.weekdays) | _bits(self.weekday_rules, month)
        return by_date | by_weekday if self.either else by_date & by_weekday


@dataclass(frozen=True, slots=True)
class Fields:
    """Matching local times: bit masks of seconds, minutes and hours on certain days.

    With ``real_time``, the hours are a wildcard, and the cron is due whenever clocks show a matching time.
    """

    seconds: int
    minutes: int
    hours: int
    days: Days
    real_time: bool

    def first(self, local_seconds: int) -> int | None:
        """Return the first matching time at or after ``local_seconds``; ``None`` if none up to the year 9998."""
        day, second = divmod(local_seconds, DAY_SECONDS)
        ordinal = day + _EPOCH_ORDINAL
        if ordinal > _LAST_ORDINAL:
            return None
        if self.days.has(ordinal):
            time = self._time(second)
            if time >= 0:
                return day * DAY_SECONDS + time
        found = self.days.first(ordinal + 1)
        return None if found is None else (found - _EPOCH_ORDINAL) * DAY_SECONDS + self._time(0)

    def _time(self, second_of_day: int) -> int:
        """Return the first matching time of day at or after ``second_of_day``, or -1."""
        hour, rest = divmod(second_of_day, 3600)
        minute, second = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1:
                found = _lowest(self.seconds, second)
                if found >= 0:
                    return hour * 3600 + minute * 60 + found
            found = _lowest(self.minutes, minute + 1)
            if found >= 0:
                return hour * 3600 + found * 60 + _lowest(self.seconds, 0)
        found = _lowest(self.hours, hour + 1)
        return -1 if found < 0 else found * 3600 + _lowest(self.minutes, 0) * 60 + _lowest(self.seconds, 0)


def _lowest(bits: int, start: int) -> int:
    """Return the index of the lowest set bit at or above ``start``, or -1."""
    left = bits >> start
    return start + (left & -left).bit_length() - 1 if left else -1


def _bits(rules: tuple[Rule, ...], month: Month) -> int:
    bits = 0
    for rule in rules:
        day = rule.day(month)
        if day > 0:
            bits |= 1 << day
    return bits


def _month(year: int, month: int) -> Month:
    first = date(year, month, 1).toordinal()
    following = date(year + month // 12, month % 12 + 1, 1).toordinal()
    return Month(following - first, first % 7)


_LAST_ORDINAL = date(_LAST_YEAR, 12, 31).toordinal()
