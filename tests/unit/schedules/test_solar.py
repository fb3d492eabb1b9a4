"""The sun, compared with Celery's solar()."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from celery import Celery
from celery.schedules import solar
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapp.errors.schedules import BadSchedule, SolarUnavailable
from taskapp.schedules.times import Solar, parse_instant, parse_when, when_from
from tests.support import examples

EVENTS = ["dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon", "sunset",
          "dusk_civil", "dusk_nautical", "dusk_astronomical"]  # fmt: skip


def _theirs(event: str, latitude: float, longitude: float, at: float) -> float:
    now = datetime.fromtimestamp(at, UTC)
    schedule = solar(event, latitude, longitude, app=Celery(set_as_current=False), nowfun=lambda: now)
    return (now + schedule.remaining_estimate(now)).timestamp()


@settings(max_examples=examples(100), deadline=None)
@given(
    event=st.sampled_from(EVENTS),
    # Further from the equator the sun may only just reach an event, for one of us and not for the other.
    latitude=st.floats(-48, 48),
    longitude=st.floats(-180, 180),
    hours=st.integers(0, 24 * 365 * 5),
)
def test_the_next_event_is_celerys(event, latitude, longitude, hours):
    at = parse_instant("2025-01-01") + hours * 3600.0

    found = Solar(event, latitude, longitude).after(at)

    expected = _theirs(event, latitude, longitude, at)
    # ephem's answers for one event differ by some seconds with where the search starts.
    assert abs(found - expected) < 30 or min(expected - at, found - at) < 30


@settings(max_examples=examples(100), deadline=None)
@given(
    event=st.sampled_from(EVENTS),
    latitude=st.floats(-89, 89),
    longitude=st.floats(-180, 180),
    sooner=st.floats(0, 3000),
    hours=st.integers(0, 24 * 365 * 5),
)
def test_whoever_asks_finds_the_same_second(event, latitude, longitude, sooner, hours):
    when = Solar(event, latitude, longitude)
    found = when.after(parse_instant("2025-01-01") + hours * 3600.0)

    if found is not None:
        assert found == int(found)
        assert when.after(found - 1) == found
        assert when.after(found - 1 - sooner) <= found
        assert when.after(found) is None or when.after(found) > found + 12 * 3600


def test_the_sun_rises_in_berlin_and_after_the_polar_night_in_tromso():
    assert (
        abs(Solar("sunrise", 52.52, 13.405).after(parse_instant("2026-06-21")) - parse_instant("2026-06-21T02:43")) < 90
    )
    tromso = Solar("sunrise", 69.65, 18.96).after(parse_instant("2026-12-10"))
    assert parse_instant("2027-01-10") < tromso < parse_instant("2027-01-20")


def test_without_ephem_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ephem", None)

    with pytest.raises(SolarUnavailable) as caught:
        Solar("sunrise", 52.5, 13.4)

    assert str(caught.value) == "a solar schedule needs the package ephem; install it with pip install 'taskapp[solar]'"


@pytest.mark.parametrize(("latitude", "longitude"), [(91, 0), (0, 181), ("1", 0), (None, 0), (0, float("inf"))])
def test_a_place_that_is_none_is_refused(latitude, longitude):
    with pytest.raises(BadSchedule):
        Solar("sunrise", latitude, longitude)


def test_its_form_is_read_back():
    when = Solar("dusk_civil", -33.45, -70.66)

    assert str(when) == "dusk_civil at -33.45,-70.66"
    assert parse_when(str(when)) == when_from(when.as_dict()) == when


def test_a_utc_day_with_two_sunrises_has_both():
    """At 90 degrees east the sun rises about midnight UTC, in spring a little earlier each day."""
    when, at = Solar("sunrise", 50, 90), parse_instant("2026-01-01")
    found = []
    while at < parse_instant("2028-01-01"):
        at = when.after(at)
        found.append(at)

    days = [int(due_at // 86_400) for due_at in found]
    assert len(days) > len(set(days))
    assert all(23.8 * 3600 < later - sooner < 24.2 * 3600 for sooner, later in pairwise(found))
