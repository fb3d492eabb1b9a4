"""What crons do where clocks change: tables written by hand, and a comparison with another library."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapp.schedules.times import Cron, Interval, Timing, parse_instant, utc_text
from tests.support import examples

CHANGES = {
    # Forward 02:00 -> 03:00 at 01:00 UTC, back 03:00 -> 02:00 at 01:00 UTC.
    "Europe/Berlin": ("2026-03-29T01:00Z", "2026-10-25T01:00Z"),
    # Forward 02:00 -> 03:00, back 02:00 -> 01:00.
    "America/New_York": ("2026-03-08T07:00Z", "2026-11-01T06:00Z"),
    # By half an hour: forward 02:00 -> 02:30, back 02:00 -> 01:30.
    "Australia/Lord_Howe": ("2026-10-03T15:30Z", "2026-04-04T15:00Z"),
    # At midnight: forward 00:00 -> 01:00, back 01:00 -> 00:00.
    "America/Havana": ("2026-03-08T05:00Z", "2026-11-01T05:00Z"),
    # Over midnight: forward 00:00 -> 01:00, back 00:00 -> 23:00 of the day before.
    "Asia/Beirut": ("2026-03-28T22:00Z", "2026-10-24T21:00Z"),
    "America/Sao_Paulo": ("2018-11-04T03:00Z", "2018-02-18T02:00Z"),
    # South of the equator, an hour: forward 02:00 -> 03:00, back 03:00 -> 02:00.
    "Pacific/Auckland": ("2026-09-26T14:00Z", "2026-04-04T14:00Z"),
}

GOLDEN = [
    # --- a local time that does not exist: once, at the first instant after the gap
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:30"]),
    ("0,15,30,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:00", "03-30T00:15"]),
    ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:00", "03-30T01:00"]),
    ("30 2 29 3 *", "Europe/Berlin", "2026-03-01T00:00Z", ["2026-03-29T01:00", "2027-03-29T00:30"]),
    ("*/5 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:00", "03-30T00:05"]),
    ("30 2 * * *", "America/New_York", "2026-03-07T12:00Z", ["03-08T07:00", "03-09T06:30"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", ["10-03T15:30", "10-04T15:15"]),
    ("45 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", ["10-03T15:45", "10-04T15:45"]),
    ("0 0 * * *", "America/Havana", "2026-03-07T12:00Z", ["03-08T05:00", "03-09T04:00"]),
    ("30 0 8 * *", "America/Havana", "2026-03-07T12:00Z", ["03-08T05:00", "04-08T04:30"]),
    ("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00Z", ["03-28T22:00", "03-29T21:00"]),
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00Z", ["11-04T03:00", "11-05T02:00"]),
    ("30 2 * * SUN", "Pacific/Auckland", "2026-09-25T00:00Z", ["09-26T14:00", "10-03T13:30"]),
    # --- a whole day that does not exist
    ("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00Z", ["2011-12-29T22:00", "2011-12-30T10:00", "2011-12-30T22:00"]),
    ("0 12 30 12 *", "Pacific/Apia", "2011-01-01T00:00Z", ["2011-12-30T10:00", "2012-12-29T22:00"]),
    # --- one that exists twice: the first time
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25T00:30", "10-26T01:30"]),
    ("0 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25T00:00", "10-26T01:00"]),
    ("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25T02:00", "10-26T02:00"]),
    ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10Z", ["10-26T01:30"]),
    ("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25T00:00", "10-25T00:30", "10-26T01:00"]),
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", ["11-01T05:30", "11-02T06:30"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", ["04-04T14:45", "04-05T15:15"]),
    ("0 0 * * *", "America/Havana", "2026-10-31T12:00Z", ["11-01T04:00", "11-02T05:00"]),
    ("30 23 * * *", "Asia/Beirut", "2026-10-24T00:00Z", ["10-24T20:30", "10-25T21:30"]),
    ("0 0 * * *", "Asia/Beirut", "2026-10-24T00:00Z", ["10-24T22:00", "10-25T22:00"]),
    ("30 23 17 2 *", "America/Sao_Paulo", "2018-02-17T12:00Z", ["2018-02-18T01:30", "2019-02-18T02:30"]),
    # --- wildcard hours: as clocks show it
    ("0 */2 * * *", "Europe/Berlin", "2026-03-28T22:30Z", ["03-28T23:00", "03-29T02:00", "03-29T04:00"]),
    ("0 */2 * * *", "Europe/Berlin", "2026-10-24T21:30Z", ["10-24T22:00", "10-25T00:00", "10-25T01:00", "10-25T03:00"]),
    ("0 * * * *", "Europe/Berlin", "2026-10-24T23:30Z", ["10-25T00:00", "10-25T01:00", "10-25T02:00"]),
    ("0 0-23 * * *", "Europe/Berlin", "2026-10-24T23:30Z", ["10-25T00:00", "10-25T01:00", "10-25T02:00"]),
    ("0 * * * *", "Australia/Lord_Howe", "2026-10-03T14:00Z", ["10-03T14:30", "10-03T16:00", "10-03T17:00"]),
    ("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00Z", ["04-04T14:45", "04-04T15:15", "04-04T16:15"]),
    ("50 */23 17 2 *", "America/Sao_Paulo", "2018-02-18T01:55Z", ["2018-02-18T02:50", "2019-02-17T03:50"]),
    # --- seconds
    ("30 59 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00", "2026-03-30T00:59:30"]),
]


def due_times(cron: Cron, start: str, count: int) -> list[str]:
    found, at = [], parse_instant(start)
    for _ in range(count):
        at = cron.after(at)
        found.append(utc_text(at))
    return found


def whole(text: str, year: str) -> str:
    text = text if text[4] == "-" else f"{year}-{text}"
    return f"{text}:00Z" if len(text) == 16 else f"{text}Z"


@pytest.mark.parametrize(("expression", "zone", "start", "expected"), GOLDEN)
def test_a_cron_is_due_as_written_by_hand(expression, zone, start, expected):
    found = due_times(Cron(expression, zone), start, len(expected))

    assert found == [whole(text, start[:4]) for text in expected]


@pytest.mark.parametrize(
    ("expression", "zone", "start", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25T00:30", "10-25T01:30", "10-26T01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:30"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", ["04-04T14:45", "04-04T15:15", "04-05T15:15"]),
        ("0 0 * * *", "America/Havana", "2026-10-31T12:00Z", ["11-01T04:00", "11-01T05:00", "11-02T05:00"]),
        ("30 23 * * *", "Asia/Beirut", "2026-10-24T00:00Z", ["10-24T20:30", "10-24T21:30", "10-25T21:30"]),
    ],
)
def test_a_time_that_exists_twice_is_due_twice_by_choice(expression, zone, start, expected):
    found = due_times(Cron(expression, zone, twice=True), start, len(expected))

    assert found == [whole(text, start[:4]) for text in expected]


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize("minutes", [5, 15, 30])
def test_every_few_minutes_means_real_minutes_through_both_changes(zone, minutes):
    for change in CHANGES[zone]:
        at = parse_instant(change)
        timing = Timing(Cron(f"*/{minutes} * * * *", zone))

        found = list(timing.between(at - 86_400, at + 86_400, limit=10_000))

        assert found == [at - 86_400 + k * minutes * 60 for k in range(2 * 1440 // minutes)]


@pytest.mark.parametrize("zone", CHANGES)
def test_a_daily_time_is_due_once_a_day_through_both_changes(zone):
    for change, hour, minute in product(CHANGES[zone], range(24), (0, 10, 30, 55)):
        at = parse_instant(change)
        first = parse_instant(utc_text(at - 3 * 86_400)[:10], zone)
        last = parse_instant(utc_text(at + 4 * 86_400)[:10], zone)

        found = list(Timing(Cron(f"{minute} {hour} * * *", zone)).between(first, last, limit=100))

        assert len(found) == 7
        assert all(22.9 * 3600 <= later - sooner <= 25.1 * 3600 for sooner, later in pairwise(found))


def test_an_interval_knows_no_clock_changes():
    at = parse_instant("2026-03-29T01:00Z")

    found = list(Timing(Interval(5400), zone="Europe/Berlin").between(at - 7200, at + 7200, limit=100))

    assert {later - sooner for sooner, later in pairwise(found)} == {5400}


# --- compared with cronsim, which follows Debian's cron ---------------------------------------------


@st.composite
def _expressions(draw):
    """Crons that cronsim and we mean the same by.

    It calls a cron wild by its minute field too (Debian), so no ``*`` minute with fixed hours; and it takes all
    24 hours written out for fixed ones.
    """
    wild = draw(st.booleans())
    minute = draw(st.sampled_from(["0", "15", "30", "59", "0,30", "10-50/20"]))
    hour = draw(st.sampled_from(["0", "1", "2", "23", "1,2", "0-4", "0-22/2", "2-3"]))
    if wild:
        minute = draw(st.sampled_from(["*", "*/7", "*/15", "0", "30"]))
        hour = draw(st.sampled_from(["*", "*/2", "*/5", "*/23"]))
    monthday = draw(st.sampled_from(["*", "*/2", "1", "L", "1-15", "29,30", "LW"]))
    month = draw(st.sampled_from(["*", "*", "*/2", "MAR", "oct-nov", "2,4,9"]))
    weekday = draw(st.sampled_from(["*", "*", "SUN", "7", "MON-FRI", "*/3", "5L", "SUN#2", "0#1,6"]))
    return f"{minute} {hour} {monthday} {month} {weekday}"


# Where half an hour is lost or gained, cronsim's wild crons step over it by the hour: in Lord_Howe its
# ``45 * * * *`` skips the 02:45 that follows 02:00. Only fixed hours are compared there.
ALIKE = [zone for zone in CHANGES if zone != "Australia/Lord_Howe"]

# Where midnight does not exist, it begins a day it has searched for at that midnight: in Havana its
# ``* */2 * MAR SUN#2`` runs at 01:00, which clocks show and which is no even hour. Left out.
MIDNIGHT_EXISTS = ["Europe/Berlin", "America/New_York", "Pacific/Auckland", "America/Los_Angeles", "Asia/Tokyo", "UTC"]


@settings(max_examples=examples(300), deadline=None)
@given(expression=_expressions(), zone=st.sampled_from(MIDNIGHT_EXISTS), hours=st.integers(0, 24 * 365 * 3))
def test_cronsim_finds_the_same_due_times(expression, zone, hours):
    at = parse_instant("2025-01-01") + hours * 3600.0
    theirs = CronSim(expression, datetime.fromtimestamp(at, ZoneInfo(zone)))
    ours = Cron(expression, zone)

    for _ in range(12):
        at = ours.after(at)
        assert datetime.fromtimestamp(at, UTC) == next(theirs).astimezone(UTC)


FIXED = [
    "30 2 * * *",
    "30 1 * * *",
    "0 2,3 * * *",
    "15 2 * * *",
    "45 1 * * *",
    "0 0 * * *",
    "30 23 * * *",
    "30 0 * * *",
]
WILD = ["*/10 * * * *", "15 */2 * * *", "0 */3 * * *", "45 * * * *"]


@pytest.mark.parametrize("zone", CHANGES)
def test_cronsim_finds_the_same_around_each_change(zone):
    for expression in FIXED + (WILD if zone in ALIKE else []):
        for change in CHANGES[zone]:
            at = parse_instant(change) - 86_400
            theirs = CronSim(expression, datetime.fromtimestamp(at, ZoneInfo(zone)))
            for _ in range(40):
                at = Cron(expression, zone).after(at)
                assert datetime.fromtimestamp(at, UTC) == next(theirs).astimezone(UTC), expression


@pytest.mark.parametrize("zone", CHANGES)
def test_croniter_finds_the_same_as_a_cron_that_is_due_twice(zone):
    """It knows no other way; with wildcard hours it adds a due time after the gap, so these are left out."""
    for expression in FIXED:
        for change in CHANGES[zone]:
            at = parse_instant(change) - 86_400
            theirs = croniter(expression, datetime.fromtimestamp(at, ZoneInfo(zone)))
            for _ in range(6):
                at = Cron(expression, zone, twice=True).after(at)
                assert datetime.fromtimestamp(at, UTC) == theirs.get_next(datetime).astimezone(UTC), expression
