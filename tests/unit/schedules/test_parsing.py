# ruff: noqa: E501
"""What people write, and the answers they get."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times import (
    Cron,
    Interval,
    Once,
    Solar,
    duration_text,
    parse_duration,
    parse_instant,
    parse_when,
    utc_text,
)

BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("0 3 * * MON-FRI", Cron("0 3 * * MON-FRI", BERLIN)),
        ("L * * * *", None),
        ("@daily", Cron("@daily", BERLIN)),
        ("every 90s", Interval(90)),
        ("EVERY  1h30m  from  2026-01-01T00:00", Interval(5400, 1767222000)),
        ("every 1 h 30 min from 2026-01-01T00:00Z", Interval(5400, 1767225600)),
        ("at 2026-12-01T09:00", Once(1796112000)),
        ("At 2026-12-01 09:00:00.5+00:00", Once(1796115600.5)),
        ("sunrise at 52.5, 13.4", Solar("sunrise", 52.5, 13.4)),
        ("Dusk_Civil at -33,-70.6", Solar("dusk_civil", -33, -70.6)),
    ],
)
def test_due_times_are_read(text, when):
    if when is None:
        with pytest.raises(BadSchedule):
            parse_when(text, BERLIN)
    else:
        assert parse_when(text, BERLIN) == when


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("evry 90s", "when of a schedule cannot be 'evry 90s': it is not a cron expression and starts with no known word; did you mean 'every'?"),
        ("tomorrow", "when of a schedule cannot be 'tomorrow': it is not a cron expression and starts with no known word; write it like '0 3 * * MON-FRI', 'every 90s', 'at 2026-12-01T09:00' or 'sunrise at 52.5,13.4'"),
        ("every day", "duration of a schedule cannot be 'day': it does not consist of numbers with units; write it like '90s' or '1h30m'"),
        ("every 5 minuts", None),
        ("every 5 fortnights", "duration of a schedule cannot be '5 fortnights': 'fortnights' is not a unit; give ms, s, m, h, d or w"),
        ("every 5 secnds", "duration of a schedule cannot be '5 secnds': 'secnds' is not a unit; did you mean 'second'?"),
        ("every 10ms", "interval of a schedule cannot be 0.01: it is out of range; give 0.1 s to 100 years, in seconds"),
        ("at noon", "time of a schedule cannot be 'noon': it is not an ISO 8601 time; write it like '2026-12-01T09:00'"),
        ("sunrse at 1,2", "solar event of a schedule cannot be 'sunrse': there is no such event; did you mean 'sunrise'?"),
        ("sunrise at 91,2", "latitude of a schedule cannot be 91.0: there is no such place; give degrees from -90 to 90"),
        ("sunrise at north,2", "latitude of a schedule cannot be 'north': it is not a number; give degrees, such as 52.5"),
        ("sunrise at nan,2", "latitude of a schedule cannot be nan: it is not a finite number; give a number"),
        ("", None), (" ", None), ("at", None), ("every", None), ("every 5s from", None), ("x" * 100_000, None), ("every " + "1s" * 400, None),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_a_sentence(text, sentence):
    if text == "every " + "1s" * 400:
        assert parse_when(text) == Interval(400)
        return
    with pytest.raises(BadSchedule) as caught:
        parse_when(text)

    assert sentence is None or str(caught.value) == sentence


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-12-01T09:00", "UTC", "2026-12-01T09:00:00Z"),
        ("2026-12-01T09:00", BERLIN, "2026-12-01T08:00:00Z"),
        ("2026-12-01T09:00Z", BERLIN, "2026-12-01T09:00:00Z"),
        ("2026-12-01T09:00+05:30", BERLIN, "2026-12-01T03:30:00Z"),
        ("2026-12-01", BERLIN, "2026-11-30T23:00:00Z"),
        (" 2026-12-01 09:00:00.1234 ", "UTC", "2026-12-01T09:00:00.123Z"),
        ("2026-03-29T02:30", BERLIN, "2026-03-29T01:00:00Z"),
        ("2026-10-25T02:30", BERLIN, "2026-10-25T00:30:00Z"),
        ("2026-03-29", "Asia/Beirut", "2026-03-28T22:00:00Z"),
        ("2011-12-30T12:00", "Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("1850-01-01", BERLIN, "1849-12-31T23:06:32Z"),
    ],
)
def test_instants_are_read_in_their_zone(text, zone, expected):
    assert utc_text(parse_instant(text, zone)) == expected


@pytest.mark.parametrize(
    "text", ["", "now", "0001-01-01", "9999-12-31T23:59", "0001-01-01T00:00+23:59", "1e9", "2026-02-30"]
)
def test_an_instant_that_is_none_is_refused(text):
    with pytest.raises(BadSchedule) as caught:
        parse_instant(text, BERLIN)

    assert caught.value.field == "time"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("2 days", 172_800), ("500ms", 0.5), ("1 Week", 604_800), ("0.1s", 0.1),
        ("1 min 1 sec", 61), ("2hours", 7200),
    ],
)  # fmt: skip
def test_lengths_of_time_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5s-", "1e5s", "5 s x", "٣s", "9" * 50 + "s", "5ss", "5mss", "5hs", "."]
)
def test_a_length_of_time_that_is_none_is_refused(text):
    with pytest.raises(BadSchedule):
        parse_duration(text)


@given(st.integers(1, 10**13))
def test_a_length_of_time_is_written_as_it_is_read(ms):
    assert parse_duration(duration_text(ms / 1000)) == ms / 1000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (90, "90 s"),
        (60, "1 min"),
        (5400, "1 h 30 min"),
        (0.25, "0.25 s"),
        (90_061.5, "1 d 1 h 1 min 1.5 s"),
        (0, "0 s"),
    ],
)
def test_lengths_of_time_are_written_for_people(seconds, text):
    assert duration_text(seconds) == text


@given(st.text(max_size=40) | st.text("0123456789*/-,LW#? every@:TZ.", max_size=40))
def test_any_text_is_read_or_refused_in_a_sentence(text):
    assert len(_answer(text)) < 600


def _answer(text: str) -> str:
    try:
        return str(parse_when(text))
    except BadSchedule as error:
        return str(error)
