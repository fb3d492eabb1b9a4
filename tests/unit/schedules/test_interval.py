# ruff: noqa: E501
"""Intervals, and one time only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times import Interval, Once, floor_ms, parse_when, when_from

AT = 1_800_000_000.0


@given(
    period_ms=st.integers(100, 10**10), anchor_ms=st.integers(0, 4 * 10**12), at=st.floats(-1e9, 5e9, allow_nan=False)
)
def test_due_times_are_the_anchor_and_whole_periods_from_it(period_ms, anchor_ms, at):
    when = Interval(period_ms / 1000, anchor_ms / 1000)

    due_ms = [floor_ms(due_at) for due_at in (when.after(at), when.after(when.after(at)))]

    assert due_ms[0] / 1000 > at
    assert due_ms[0] / 1000 - period_ms / 1000 <= at + 1e-6
    assert due_ms[1] - due_ms[0] == period_ms
    assert (due_ms[0] - anchor_ms) % period_ms == 0


@given(due_ms=st.integers(-5 * 10**12, 2 * 10**14))
def test_a_due_time_survives_milliseconds_and_back(due_ms):
    assert floor_ms(due_ms / 1000) == due_ms


def test_a_tenth_of_a_second_does_not_drift_in_a_day():
    when, at = Interval(0.1), AT
    for _ in range(36_000):
        at = when.after(at)

    assert at == AT + 3600


def test_an_anchor_in_the_future_has_due_times_before_it():
    assert Interval(3600, AT + 86_400).after(AT + 1) == AT + 3600


def test_one_time_only_is_due_once():
    when = Once(AT)

    assert when.after(AT - 0.001) == AT
    assert when.after(AT) is None
    assert when.after(float("inf")) is None
    assert when.after(float("-inf")) == AT


def test_nothing_is_due_after_the_calendar_ends():
    assert Interval(60).after(float("inf")) is None


@pytest.mark.parametrize(
    ("seconds", "sentence"),
    [
        (0, "interval of a schedule cannot be 0: it is out of range; give 0.1 s to 100 years, in seconds"),
        (-5, "interval of a schedule cannot be -5: it is out of range; give 0.1 s to 100 years, in seconds"),
        (1 / 3, "interval of a schedule cannot be 0.3333333333333333: it is not a whole number of milliseconds; give 0.333"),
        (float("nan"), "interval of a schedule cannot be nan: it is not a finite number; give a number"),
        (10**400, None),
        (True, "interval of a schedule cannot be True: it is not a finite number; give a number"),
        ("90", "interval of a schedule cannot be '90': it is not a finite number; give a number"),
        (1e18, None),
    ],
)  # fmt: skip
def test_a_period_that_cannot_be_is_refused(seconds, sentence):
    with pytest.raises(BadSchedule) as caught:
        Interval(seconds)

    assert sentence is None or str(caught.value) == sentence


@pytest.mark.parametrize("at", [float("inf"), float("nan"), 1e15, -1e15, None, "now"])
def test_an_instant_outside_the_calendar_is_refused(at):
    with pytest.raises(BadSchedule):
        Once(at)
    with pytest.raises(BadSchedule):
        Interval(60, at)


@given(
    st.builds(Interval, st.integers(100, 10**10).map(lambda ms: ms / 1000), st.floats(0, 1e11))
    | st.builds(Once, st.floats(-1e9, 1e11))
)
def test_what_it_says_of_itself_is_read_back(when):
    assert parse_when(str(when)) == when
    assert when_from(when.as_dict()) == when
    assert hash(when_from(when.as_dict())) == hash(when)
