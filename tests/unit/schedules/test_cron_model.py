# ruff: noqa: DTZ001
"""Crons against a model that walks through time minute by minute and knows nothing of ours."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from taskapp.schedules.times import Cron, Timing, when_from
from tests.support import examples

MINUTE = timedelta(minutes=1)

# Each within three days of a change, or of none.
PLACES = [
    ("Europe/Berlin", datetime(2026, 3, 28)),
    ("Europe/Berlin", datetime(2026, 10, 24)),
    ("America/New_York", datetime(2026, 3, 7)),
    ("America/New_York", datetime(2026, 10, 31)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4)),
    ("America/Havana", datetime(2026, 3, 7)),
    ("America/Havana", datetime(2026, 10, 31)),
    ("Asia/Beirut", datetime(2026, 3, 27)),
    ("Asia/Beirut", datetime(2026, 10, 23)),
    ("America/St_Johns", datetime(2010, 3, 13)),
    ("America/St_Johns", datetime(2010, 11, 6)),
    ("Pacific/Apia", datetime(2011, 12, 29)),
    ("America/Sao_Paulo", datetime(2018, 2, 16)),
    ("Africa/Casablanca", datetime(2026, 2, 14)),
    ("Antarctica/Troll", datetime(2026, 3, 28)),
    ("UTC", datetime(2028, 2, 28)),
    ("Asia/Tokyo", datetime(2026, 12, 30)),
]


@dataclass(frozen=True)
class Model:
    """A cron as sets of numbers, with what its days have to meet."""

    minutes: frozenset[int]
    hours: frozenset[int]
    monthdays: frozenset[int] | None
    weekdays: frozenset[int] | None
    wild: bool

    def expression(self) -> str:
        hours = "*" if self.wild and len(self.hours) == 24 else f"*/{sorted(self.hours)[1]}" if self.wild else None
        return " ".join(
            [_list(self.minutes), hours or _list(self.hours), _list(self.monthdays), "*", _list(self.weekdays)]
        )

    def matches(self, local: datetime) -> bool:
        return local.minute in self.minutes and local.hour in self.hours and self._on(local.date())

    def _on(self, day: date) -> bool:
        by_date = self.monthdays is None or day.day in self.monthdays
        by_weekday = self.weekdays is None or day.isoweekday() % 7 in self.weekdays
        if self.monthdays is not None and self.weekdays is not None:
            return by_date or by_weekday
        return by_date and by_weekday

    def due(self, zone: str, first: datetime, last: datetime, *, twice: bool) -> list[float]:
        """Return the due times in [first, last), both in UTC."""
        if self.wild or len(self.hours) == 24:
            return [at.timestamp() for at in _minutes(first, last) if self.matches(at.astimezone(ZoneInfo(zone)))]
        found = set()
        for local in _minutes(
            first.replace(tzinfo=None) - timedelta(days=2), last.replace(tzinfo=None) + timedelta(days=2)
        ):
            if self.matches(local):
                found.update(_instants(local, zone, twice=twice))
        return sorted(at.timestamp() for at in found if first <= at < last)


def _instants(local: datetime, zone: str, *, twice: bool) -> Iterator[datetime]:
    folds = [local.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1)]
    real = [at for at in folds if at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local]
    if not real:
        at = min(folds)
        while at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) < local:
            at += MINUTE
        yield at
    else:
        yield from set(real) if twice else real[:1]


def _minutes(first: datetime, last: datetime) -> Iterator[datetime]:
    while first < last:
        yield first
        first += MINUTE


def _list(numbers: frozenset[int] | None) -> str:
    return "*" if numbers is None else ",".join(map(str, sorted(numbers)))


@st.composite
def models(draw) -> Model:
    wild = draw(st.booleans())
    if wild:
        step = draw(st.integers(1, 23))
        hours = frozenset(range(0, 24, step))
    else:
        near = st.sampled_from([0, 1, 2, 3, 22, 23])
        hours = draw(st.frozensets(near | st.integers(0, 23), min_size=1, max_size=5))
    minute = st.sampled_from([0, 1, 29, 30, 31, 45, 59]) | st.integers(0, 59)
    return Model(
        minutes=draw(st.frozensets(minute, min_size=1, max_size=6)),
        hours=hours,
        monthdays=draw(st.none() | st.frozensets(st.integers(1, 31), min_size=1, max_size=25)),
        weekdays=draw(st.none() | st.frozensets(st.integers(0, 6), min_size=1, max_size=5)),
        wild=wild,
    )


@settings(max_examples=examples(250), deadline=None)
@given(model=models(), place=st.sampled_from(PLACES), twice=st.booleans(), offset_minutes=st.integers(0, 1500))
def test_due_times_in_a_window_are_those_of_the_model(model, place, twice, offset_minutes):
    zone, start = place
    first = start.replace(tzinfo=UTC) + timedelta(minutes=offset_minutes)
    last = first + timedelta(days=2)

    timing = Timing(Cron(model.expression(), zone, twice=twice))

    assert list(timing.between(first.timestamp(), last.timestamp(), limit=10_000)) == model.due(
        zone, first, last, twice=twice
    )


@settings(max_examples=examples(300), deadline=None)
@given(
    model=models(),
    place=st.sampled_from(PLACES),
    twice=st.booleans(),
    offset=st.floats(-200_000, 400_000, allow_nan=False),
    sooner=st.floats(0, 100_000, allow_nan=False),
)
def test_the_next_due_time_is_later_and_the_same_whoever_asks(model, place, twice, offset, sooner):
    zone, start = place
    cron = Cron(model.expression(), zone, twice=twice)
    at = start.replace(tzinfo=UTC).timestamp() + offset

    found = cron.after(at)

    assert found > at
    assert cron.after(found - 1) == found
    assert cron.after(found) > found
    assert cron.after(at - sooner) <= found
    assert when_from(cron.as_dict()) == cron
    assert when_from(cron.as_dict()).after(at) == found


# --- days that move ----------------------------------------------------------------------------


def _workday_nearest(year: int, month: int, day: int) -> int | None:
    length = calendar.monthrange(year, month)[1]
    if day > length:
        return None
    work = [d for d in range(1, length + 1) if date(year, month, d).weekday() < 5]
    return min(work, key=lambda d: (abs(d - day), d))


def _moving(expression: str, year: int, month: int) -> int | None:
    length = calendar.monthrange(year, month)[1]
    days = range(1, length + 1)
    if expression == "LW":
        return max(d for d in days if date(year, month, d).weekday() < 5)
    if expression.endswith("W"):
        return _workday_nearest(year, month, int(expression[:-1]))
    if expression.startswith("L"):
        day = length - int(expression[2:] or 0)
        return day if day > 0 else None
    number, _, count = expression.partition("#")
    on = [d for d in days if date(year, month, d).isoweekday() % 7 == int(number.rstrip("L")) % 7]
    if expression.endswith("L"):
        return on[-1]
    return on[int(count) - 1] if len(on) >= int(count) else None


def test_days_that_move_are_those_of_the_calendar_for_thirty_years():
    monthdays = ["L", "LW", *(f"L-{n}" for n in range(1, 31)), *(f"{n}W" for n in range(1, 32))]
    weekdays = [f"{n}L" for n in range(8)] + [f"{n}#{count}" for n in range(8) for count in range(1, 6)]
    for expression in monthdays + weekdays:
        in_month = expression in monthdays
        cron = Cron(f"0 0 {expression} * *" if in_month else f"0 0 * * {expression}")
        expected = [
            datetime(year, month, day, tzinfo=UTC).timestamp()
            for year in range(2020, 2050)
            for month in range(1, 13)
            if (day := _moving(expression, year, month))
        ]

        found = Timing(cron).between(datetime(2020, 1, 1, tzinfo=UTC).timestamp(), expected[-1] + 1, limit=10_000)

        assert list(found) == expected, expression
