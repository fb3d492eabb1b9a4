# ruff: noqa: E501, DTZ001
"""Start, end and dates left out."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times import (
    Cron,
    Crontab,
    Interval,
    Once,
    Solar,
    Timing,
    parse_instant,
    utc_text,
    when_from,
)
from tests.support import examples

BERLIN = "Europe/Berlin"


def dates(timing: Timing, start: str, count: int) -> list[str]:
    return [utc_text(at)[:16] for at in timing.between(parse_instant(start), parse_instant("2100-01-01"), count)]


def test_the_start_is_included_and_the_end_is_not():
    timing = Timing(
        Interval(3600), start_at=parse_instant("2026-01-01T10:00"), end_at=parse_instant("2026-01-01T12:00")
    )

    assert dates(timing, "2020-01-01", 10) == ["2026-01-01T10:00", "2026-01-01T11:00"]
    assert timing.after(parse_instant("2026-01-01T11:00")) is None
    assert timing.after(float("-inf")) == parse_instant("2026-01-01T10:00")


def test_a_window_includes_its_first_instant_and_not_its_last():
    at = parse_instant("2026-01-01")

    assert list(Timing(Interval(60)).between(at, at + 180, limit=10)) == [at, at + 60, at + 120]
    assert list(Timing(Interval(60)).between(at + 0.0004, at + 180, limit=10)) == [at + 60, at + 120]
    assert list(Timing(Interval(60)).between(at, at + 180, limit=2)) == [at, at + 60]
    assert list(Timing(Interval(60)).between(at, at, limit=2)) == []
    assert list(Timing(Interval(60)).between(at + 180, at, limit=2)) == []


def test_excluded_dates_are_those_of_the_schedules_zone():
    timing = Timing(Cron("30 0 * * *", BERLIN), excluded=(date(2026, 1, 2), (date(2026, 1, 4), date(2026, 1, 6))))

    assert dates(timing, "2025-12-31T12:00", 4) == [
        "2025-12-31T23:30",
        "2026-01-02T23:30",
        "2026-01-06T23:30",
        "2026-01-07T23:30",
    ]


def test_an_interval_goes_by_the_dates_of_the_zone_it_is_given():
    days = (date(2026, 3, 29),)
    change = parse_instant("2026-03-29T00:00", BERLIN)

    found = list(Timing(Interval(3600), excluded=days, zone=BERLIN).between(change - 7200, change + 90_000, 100))

    # The day the clocks go forward has 23 hours.
    assert found == [change - 7200, change - 3600, change + 23 * 3600, change + 24 * 3600]


@settings(deadline=None, max_examples=examples(150))
@given(
    days=st.lists(st.integers(0, 12), max_size=6),
    zone_and_start=st.sampled_from(
        [
            (BERLIN, datetime(2026, 3, 25)),
            ("Asia/Beirut", datetime(2026, 10, 20)),
            ("America/St_Johns", datetime(2010, 11, 1)),
            ("Pacific/Apia", datetime(2011, 12, 25)),
            ("Australia/Lord_Howe", datetime(2026, 4, 1)),
        ]
    ),
    when=st.sampled_from([Interval(600), Interval(3000, 17), "*/10 * * * *", "30 23,0 * * *", "15 */3 * * MON-FRI"]),
)
def test_left_out_is_what_clocks_show_a_left_out_date_for(days, zone_and_start, when):
    zone, start = zone_and_start
    when = Cron(when, zone) if isinstance(when, str) else when
    excluded = tuple((start + timedelta(days=day)).date() for day in days)
    first = start.replace(tzinfo=ZoneInfo(zone)).timestamp()

    found = list(Timing(when, excluded=excluded, zone=zone).between(first, first + 14 * 86_400, 10_000))

    everything = Timing(when).between(first, first + 14 * 86_400, 10_000)
    assert found == [at for at in everything if datetime.fromtimestamp(at, ZoneInfo(zone)).date() not in excluded]


def test_excluded_dates_are_kept_sorted_and_merged():
    days = (
        (date(2026, 5, 1), date(2026, 5, 3)),
        date(2026, 1, 2),
        date(2026, 1, 1),
        (date(2026, 5, 2), date(2026, 5, 9)),
        date(2026, 5, 2),
    )

    assert Timing(Interval(60), excluded=days).excluded == (
        (date(2026, 1, 1), date(2026, 1, 2)),
        (date(2026, 5, 1), date(2026, 5, 9)),
    )


def test_a_schedule_that_is_left_out_altogether_is_never_due():
    everything = ((date.min, date.max),)

    assert Timing(Cron("0 3 * * *", BERLIN), excluded=everything).after(0) is None
    assert Timing(Once(1.8e9), excluded=everything).after(0) is None
    assert Timing(Interval(0.1), excluded=everything).after(0) is None
    christmas = tuple(date(year, 12, 25) for year in range(2026, 2050))
    assert Timing(Cron("0 0 25 12 *"), excluded=christmas).after(parse_instant("2026-01-01")) is None
    assert Timing(Cron("0 0 25 12 *"), excluded=christmas[:5]).after(parse_instant("2026-01-01")) is not None


def test_a_single_time_is_found_however_far_away():
    assert Timing(Once(parse_instant("2126-01-01"))).after(0) == parse_instant("2126-01-01")


TIMINGS = st.builds(
    Timing,
    st.sampled_from(
        [
            Cron("0 3 * * *", BERLIN, twice=True),
            Cron("@daily"),
            Crontab("*/5", "2-4", zone=BERLIN),
            Interval(90, 5),
            Once(1.8e9),
            Solar("sunset", 52.5, 13.4),
        ]
    ),
    start_at=st.none() | st.floats(0, 1.7e9),
    end_at=st.none() | st.floats(1.8e9, 5e9),
    excluded=st.lists(st.dates() | st.tuples(st.dates(), st.dates()).map(sorted).map(tuple), max_size=5).map(tuple),
    zone=st.sampled_from(["UTC", BERLIN]),
)


@given(TIMINGS)
def test_the_form_of_its_due_times_survives_json(timing):
    again = when_from(json.loads(json.dumps(timing.when.as_dict())))

    assert again == timing.when
    assert hash(again) == hash(timing.when)


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"start_at": 20, "end_at": 20}, "end of a schedule cannot be 20.0: it is not after the start, 20.0; give a later end"),
        ({"start_at": "now"}, "start of a schedule cannot be 'now': it is not a finite number; give a number"),
        ({"excluded": ["2026-01-01"]}, "excluded dates of a schedule cannot be '2026-01-01': they are not dates; give a date, or a pair of first and last date"),
        ({"excluded": [(date(2026, 1, 2), date(2026, 1, 1))]}, "excluded dates of a schedule cannot be (datetime.date(2026, 1, 2), datetime.date(2026, 1, 1)): the last date is before the first; swap them"),
        ({"excluded": date(2026, 1, 1)}, "excluded dates of a schedule cannot be datetime.date(2026, 1, 1): they are not a list; give a list of dates or pairs of dates"),
        ({"zone": "Mars"}, None),
        ({"excluded": [datetime(2026, 1, 1)]}, None),
    ],
)  # fmt: skip
def test_bounds_that_cannot_be_are_refused(terms, sentence):
    with pytest.raises(BadSchedule) as caught:
        Timing(Interval(60), **terms)

    assert sentence is None or str(caught.value) == sentence


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"kind": "crown"}, "kind of a schedule cannot be 'crown': there is no such kind; did you mean 'cron'?"),
        ({}, "kind of a schedule cannot be '': there is no such kind; give one of cron, crontab, interval, once, solar"),
        ({"kind": "cron", "expression": "@daily", "zon": "UTC"}, "cron of a schedule cannot be 'zon': there is no such key; did you mean 'zone'?"),
        ({"kind": "cron"}, "cron of a schedule cannot be {'kind': 'cron'}: 'expression' is missing; add 'expression'"),
        ({"kind": "cron", "expression": 5}, "cron of a schedule cannot be 5: it is not text; write it like '0 3 * * *'"),
        ({"kind": "cron", "expression": "@daily", "twice": 1}, "twice of a schedule cannot be 1: it is not a boolean; give true or false"),
        ([], "when of a schedule cannot be []: it is not an object with keys; give what as_dict() returns"),
        ({"kind": []}, None), ({"kind": "once", "at": None}, None), ({"kind": "solar", "event": [], "latitude": 1, "longitude": 1}, None),
        ({"kind": "cron", "expression": "@daily", 5: 5}, None), ({"kind": "crontab", "minute": None}, None),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_read_is_refused_in_a_sentence(form, sentence):
    with pytest.raises(BadSchedule) as caught:
        when_from(form)

    assert sentence is None or str(caught.value) == sentence
