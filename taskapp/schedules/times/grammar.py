"""Parsers for cron fields: Vixie's syntax with Quartz's ``L``, ``W`` and ``#``, and Celery's syntax."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from taskapp.errors import did_you_mean
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times.fields import Days, Fields, Rule
from taskapp.schedules.times.instants import EARLIEST_AT

_MAX_LENGTH = 1000
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ALL_HOURS = (1 << 24) - 1


@dataclass(frozen=True, slots=True)
class Unit:
    """One field: its name in errors, its lowest and highest number, and names for numbers."""

    name: str
    low: int
    high: int
    names: Mapping[str, int]

    def number(self, text: str, whole: str) -> int:
        """Return the number that ``text``, a part of ``whole``, stands for.

        Raises:
            BadSchedule: ``text`` is not a number or name, or is out of range.
        """
        known = self.names.get(text.upper())
        if known is not None:
            return known
        if not _is_number(text):
            close = did_you_mean(text.upper(), self.names).removeprefix("; ")
            raise BadSchedule(self.name, whole, f"{text[:40]!r} is not a number", close or self._remedy())
        if not self.low <= int(text) <= self.high:
            raise BadSchedule(self.name, whole, f"{text} is out of range", self._remedy())
        return int(text)

    def _remedy(self) -> str:
        names = f" or {next(iter(self.names))} to {list(self.names)[-1]}" if self.names else ""
        return f"give {self.low} to {self.high}{names}, a list, a range or '*'"


SECOND = Unit("second", 0, 59, {})
MINUTE = Unit("minute", 0, 59, {})
HOUR = Unit("hour", 0, 23, {})
MONTHDAY = Unit("day of month", 1, 31, {})
MONTH = Unit("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)})
WEEKDAY = Unit("weekday", 0, 7, {name: number for number, name in enumerate(_WEEKDAYS)})


def cron_fields(expression: str) -> Fields:
    """Parse a Vixie cron expression: five fields, six with seconds first, or a macro.

    Raises:
        BadSchedule: The expression is invalid, or no year has such a day.
    """
    if len(expression) > _MAX_LENGTH:
        raise BadSchedule("cron", expression, f"it is longer than {_MAX_LENGTH} characters", "shorten it")
    return _cron_fields(expression)


@lru_cache(maxsize=4096)
def _cron_fields(expression: str) -> Fields:
    parts = _expanded(expression).split()
    if len(parts) not in (5, 6):
        raise BadSchedule(
            "cron",
            expression,
            f"it has {len(parts)} fields",
            "give minute, hour, day of month, month and weekday, as in '0 3 * * MON-FRI', or six with seconds first",
        )
    second, minute, hour, monthday, month, weekday = parts if len(parts) == 6 else ["0", *parts]
    monthdays, monthday_rules = _days(monthday, MONTHDAY, _monthday_rule)
    weekdays, weekday_rules = _days(weekday, WEEKDAY, _weekday_rule)
    hours = _set(hour, HOUR)
    days = Days(
        _set(month, MONTH),
        monthdays,
        weekdays,
        monthday_rules,
        weekday_rules,
        either=monthday[0] not in "*?" and weekday[0] not in "*?",
    )
    fields = Fields(_set(second, SECOND), _set(minute, MINUTE), hours, days, _is_real_time(hour, hours))
    return _possible(fields, expression)


@lru_cache(maxsize=4096)
def celery_fields(minute: str, hour: str, day_of_month: str, month_of_year: str, day_of_week: str) -> Fields:
    """Parse the fields of Celery's ``crontab``: all must match, ranges may wrap, Sunday is only 0.

    Raises:
        BadSchedule: A field is invalid, or no year has such a day.
    """
    hours = _celery_set(hour, HOUR)
    days = Days(
        _celery_set(month_of_year, MONTH),
        _celery_set(day_of_month, MONTHDAY),
        _celery_set(day_of_week, _CELERY_WEEKDAY),
    )
    fields = Fields(1, _celery_set(minute, MINUTE), hours, days, _is_real_time(hour, hours))
    return _possible(fields, f"{minute} {hour} {day_of_month} {month_of_year} {day_of_week}")


def _expanded(expression: str) -> str:
    if not expression.startswith("@"):
        return expression
    macro = _MACROS.get(expression.lower().strip())
    if macro is None:
        close = did_you_mean(expression.lower()[:20], _MACROS).removeprefix("; ")
        raise BadSchedule("cron", expression, "there is no such macro", close or f"give one of {', '.join(_MACROS)}")
    return macro


def _is_real_time(hour: str, hours: int) -> bool:
    return hour.startswith("*") or hours == _ALL_HOURS


def _possible(fields: Fields, expression: str) -> Fields:
    if fields.first(EARLIEST_AT) is None:
        raise BadSchedule(
            "day", expression, "no year has such a day", "choose a day of month, month and weekday that occur together"
        )
    return fields


# --- Vixie's syntax --------------------------------------------------------------------------


def _set(text: str, unit: Unit) -> int:
    bits = 0
    for item in _items(text, unit):
        bits |= _item(item, unit, text)
    return bits


def _items(text: str, unit: Unit) -> list[str]:
    items = text.split(",")
    if not all(items):
        raise BadSchedule(unit.name, text, "an item of the list is empty", "remove the extra comma")
    return items


def _item(item: str, unit: Unit, whole: str) -> int:
    span, slash, step_text = item.partition("/")
    step = _step(step_text, unit, whole) if slash else 1
    if span == "*":
        low, high = unit.low, 6 if unit is WEEKDAY else unit.high
    elif "-" in span:
        low, high = _range(span, unit, whole)
    else:
        low = unit.number(span, whole)
        high = unit.high if slash else low
    bits = 0
    for number in range(low, high + 1, step):
        bits |= 1 << number
    return _folded(bits, unit)


def _folded(bits: int, unit: Unit) -> int:
    """Return the bits, with 7 (Sunday) mapped to 0 for weekdays."""
    return (bits | bits >> 7) & 0b111_1111 if unit is WEEKDAY else bits


def _range(span: str, unit: Unit, whole: str) -> tuple[int, int]:
    first, _, last = span.partition("-")
    low, high = unit.number(first, whole), unit.number(last, whole)
    if unit is WEEKDAY and high == 0 < low:
        high = 7
    if high < low:
        highest = 6 if unit is WEEKDAY else unit.high
        remedy = f"write '{low}-{highest},{unit.low}-{high}'"
        raise BadSchedule(unit.name, whole, f"the range {span!r} runs backwards", remedy)
    return low, high


def _step(text: str, unit: Unit, whole: str) -> int:
    highest = unit.high - unit.low
    if not _is_number(text) or not 1 <= int(text) <= highest:
        raise BadSchedule(
            unit.name,
            whole,
            f"the step {text[:40]!r} is not a number from 1 to {highest}",
            "for a longer period use 'every', as in 'every 90m'",
        )
    return int(text)


def _days(text: str, unit: Unit, rule_of: Callable[[str, str], Rule | None]) -> tuple[int, tuple[Rule, ...]]:
    """Return the bit mask of the days that ``text`` names, and the items that ``rule_of`` parses as rules."""
    if text == "?":
        return _set("*", unit), ()
    bits, rules = 0, []
    for item in _items(text, unit):
        rule = rule_of(item, text)
        if rule is None:
            bits |= _item(item, unit, text)
        else:
            rules.append(rule)
    return bits, tuple(rules)


def _monthday_rule(item: str, whole: str) -> Rule | None:
    item = item.upper()
    if item in ("LW", "WL"):
        return Rule("last workday")
    if item == "L":
        return Rule("last")
    if item.startswith("L-"):
        before = item[2:]
        if not _is_number(before) or int(before) > 30:
            raise BadSchedule(MONTHDAY.name, whole, f"{before[:40]!r} is not a number up to 30", "write it like 'L-3'")
        return Rule("last", int(before))
    if item.endswith("W"):
        return Rule("nearest", MONTHDAY.number(item[:-1], whole))
    return None


def _weekday_rule(item: str, whole: str) -> Rule | None:
    day, mark, count = item.partition("#")
    if mark:
        if count not in ("1", "2", "3", "4", "5"):
            raise BadSchedule(
                WEEKDAY.name, whole, f"{count[:40]!r} is not a number from 1 to 5", "write it like 'MON#2'"
            )
        return Rule("nth weekday", int(count), WEEKDAY.number(day, whole) % 7)
    if item.upper() == "L":
        raise BadSchedule(WEEKDAY.name, whole, "'L' needs a weekday", "write it like 'FRIL' for the last Friday")
    if item.upper().endswith("L"):
        return Rule("last weekday", weekday=WEEKDAY.number(item[:-1], whole) % 7)
    return None


# --- Celery's syntax -------------------------------------------------------------------------

_CELERY_WEEKDAY = Unit("weekday", 0, 6, WEEKDAY.names)
_CELERY_ITEM = re.compile(r"(?:(?P<star>\*)|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[0-9]{1,4}))?")


def _celery_set(text: str, unit: Unit) -> int:
    bits = 0
    for item in _items(text, unit):
        for number in _celery_item(item.strip(), unit, text):
            bits |= 1 << number
    return bits


def _celery_item(item: str, unit: Unit, whole: str) -> list[int]:
    match = _CELERY_ITEM.fullmatch(item)
    if match is None or (match["step"] and (int(match["step"]) == 0 or not (match["star"] or match["last"]))):
        raise BadSchedule(unit.name, whole, f"{item[:40]!r} is not valid for crontab()", "write it like '1-5,*/10'")
    numbers = list(range(unit.low, unit.high + 1))
    if not match["star"]:
        low = unit.number(_short(match["first"], unit), whole)
        high = unit.number(_short(match["last"], unit), whole) if match["last"] else low
        numbers = (
            list(range(low, high + 1)) if low <= high else numbers[low - unit.low :] + numbers[: high - unit.low + 1]
        )
    return numbers[:: int(match["step"] or 1)]


def _short(text: str, unit: Unit) -> str:
    """Return the first three letters of a name: like Celery, accept ``monday`` for ``mon``."""
    return text if _is_number(text) or not unit.names else text[:3]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4
