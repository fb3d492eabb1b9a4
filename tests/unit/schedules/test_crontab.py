# ruff: noqa: E501
"""Celery's crontab() compared with ours."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab, crontab_parser
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times import Crontab, parse_instant, when_from
from tests.support import examples


def _theirs(fields: dict[str, str], zone: str, at: float) -> float:
    app = Celery(set_as_current=False)
    app.conf.timezone = zone
    last = datetime.fromtimestamp(at, ZoneInfo(zone))
    schedule = crontab(**fields, app=app, nowfun=lambda: last)
    return (last.astimezone(UTC) + schedule.remaining_estimate(last)).timestamp()


def _texts(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    value = number | st.sampled_from(names) if names else number
    step = st.integers(1, high).map(str)
    span = st.tuples(value, value).map("-".join)
    item = st.one_of(
        value, span, st.tuples(span, step).map("/".join), step.map("*/{}".format), st.just("*"), st.just("*")
    )
    return st.just("*") | st.lists(item, min_size=1, max_size=3).map(",".join)


FIELDS = st.fixed_dictionaries(
    {
        "minute": _texts(0, 59),
        "hour": _texts(0, 23),
        "day_of_month": _texts(1, 31) | st.just("*"),
        "month_of_year": _texts(1, 12, ("jan", "february", "Mar")) | st.just("*"),
        "day_of_week": _texts(0, 6, ("sun", "monday", "Fri")) | st.just("*"),
    }
)


@settings(max_examples=examples(300), deadline=None)
@given(fields=FIELDS, zone=st.sampled_from(["UTC", "Asia/Tokyo", "Asia/Kolkata"]), hours=st.integers(0, 24 * 365 * 4))
def test_the_next_due_time_is_celerys(fields, zone, hours):
    assume(_meet(fields))
    ours = Crontab(**fields, zone=zone)
    at = parse_instant("2025-01-01") + hours * 3600.0

    for _ in range(5):
        found = ours.after(at)
        assert found == _theirs(fields, zone, at)
        at = found


def _meet(fields: dict[str, str]) -> bool:
    """Whether Celery finds a day; where it finds none, neither may we."""
    try:
        _theirs(fields, "UTC", parse_instant("2025-01-01"))
    except (ValueError, RuntimeError):
        with pytest.raises(BadSchedule, match="no year has such a day"):
            Crontab(**fields)
        return False
    return True


@settings(max_examples=examples(300), deadline=None)
@given(text=st.text("*0123456789-/,#LWmon", min_size=1, max_size=8))
def test_what_celery_refuses_is_refused(text):
    """Celery overlooks what follows a part that it can read: there we refuse and it does not."""
    assume(not _is_celerys(text))

    with pytest.raises(BadSchedule):
        Crontab(minute=text)


def _is_celerys(text: str) -> bool:
    try:
        return bool(crontab_parser(60, 0).parse(text))
    except (ValueError, crontab_parser.ParseException):
        return False


@pytest.mark.parametrize(
    ("field", "text", "sentence"),
    [
        ("minute", "60", "minute of a schedule cannot be '60': 60 is out of range; give 0 to 59, a list, a range or '*'"),
        ("day_of_week", "7", "weekday of a schedule cannot be '7': 7 is out of range; give 0 to 6 or SUN to SAT, a list, a range or '*'"),
        ("hour", "*/0", "hour of a schedule cannot be '*/0': '*/0' is not valid for crontab(); write it like '1-5,*/10'"),
        ("hour", "", "hour of a schedule cannot be '': an item of the list is empty; remove the extra comma"),
        ("minute", 5, "minute of a schedule cannot be 5: it is not text of up to 400 characters; write it like '*/10'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_a_sentence(field, text, sentence):
    with pytest.raises(BadSchedule) as caught:
        Crontab(**{field: text})

    assert str(caught.value) == sentence


def test_every_field_must_match():
    friday_13th = Crontab("0", "0", "13", "*", "fri")

    assert friday_13th.after(parse_instant("2026-04-01")) == parse_instant("2026-11-13")


def test_its_form_is_read_back():
    when = Crontab("*/5", "22-2", "1-7", "jan-mar", "mon", "Europe/Berlin")

    assert when_from(when.as_dict()) == when
    assert str(when) == "crontab */5 22-2 1-7 jan-mar mon Europe/Berlin"
