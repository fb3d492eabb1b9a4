# ruff: noqa: DTZ001
"""Stretches of constant offset, compared with zoneinfo."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapp.schedules.times import local_date, offset_change, parse_instant
from taskapp.schedules.times.zones import instant_of, stretch_at, stretches
from tests.support import examples

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Asia/Kolkata",
]


@settings(max_examples=examples(300), deadline=None)
@given(zone=st.sampled_from(ZONES), instant=st.floats(-5.3e9, 2e10))
def test_the_offset_is_zoneinfos(zone, instant):
    stretch = stretch_at(zone, instant)

    assert stretch.start_at <= instant < stretch.end_at
    for at in (instant, stretch.start_at, stretch.end_at - 1):
        assert stretch.offset == datetime.fromtimestamp(at, ZoneInfo(zone)).utcoffset().total_seconds()


@pytest.mark.parametrize("zone", ZONES)
def test_stretches_follow_each_other_without_gap(zone):
    start_at, end_at = int(parse_instant("1890-01-01")), parse_instant("2040-01-01")
    last = None
    for stretch in stretches(zone, start_at):
        assert last is None or (stretch.start_at, stretch.before) == (last.end_at, last.offset)
        if stretch.start_at > end_at:
            break
        last = stretch


@pytest.mark.parametrize(
    ("instant", "previous", "zone", "expected"),
    [
        ("2026-03-29T01:00Z", "2026-03-29T00:59Z", "Europe/Berlin", "clocks go forward 1 h"),
        ("2026-10-25T01:00Z", "2026-10-25T00:59Z", "Europe/Berlin", "clocks go back 1 h"),
        ("2026-10-03T15:30Z", "2026-10-03T15:00Z", "Australia/Lord_Howe", "clocks go forward 30 min"),
        ("2011-12-30T10:00Z", "2011-12-29T10:00Z", "Pacific/Apia", "clocks go forward 1 d"),
        ("2026-03-29T00:59Z", "2026-03-28T00:59Z", "Europe/Berlin", None),
        ("2027-01-01T00:00Z", "2026-01-01T00:00Z", "Europe/Berlin", None),
        ("2026-03-29T01:00Z", "2026-03-29T00:59Z", "UTC", None),
    ],
)
def test_a_change_of_clocks_between_two_due_times_is_said(instant, previous, zone, expected):
    assert offset_change(parse_instant(instant), parse_instant(previous), zone) == expected


def test_local_dates_follow_the_zone():
    at = parse_instant("2026-01-01T23:30Z")

    assert local_date("UTC", at) == date(2026, 1, 1)
    assert local_date("Europe/Berlin", at) == date(2026, 1, 2)
    assert local_date("America/New_York", parse_instant("2026-01-02T04:59Z")) == date(2026, 1, 1)


@settings(max_examples=examples(200), deadline=None)
@given(zone=st.sampled_from(ZONES), local=st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)))
def test_a_local_time_is_the_first_instant_that_clocks_show_it(zone, local):
    local = local.replace(microsecond=0)
    aware = local.replace(tzinfo=ZoneInfo(zone))
    found = instant_of(zone, round((local - datetime(1970, 1, 1)).total_seconds()))
    shown = datetime.fromtimestamp(found, ZoneInfo(zone))

    assert found == aware.timestamp() or shown.replace(tzinfo=None) > local
    assert datetime.fromtimestamp(found - 1, ZoneInfo(zone)).replace(tzinfo=None) < local
