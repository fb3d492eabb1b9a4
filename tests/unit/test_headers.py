"""The table of what the headers of a message may hold."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from celery.app.task import Context
from hypothesis import given
from hypothesis import strategies as st

from taskapp.client.protocol import headers as headers_of_a_task
from taskapp.engine.headers import (
    CHECKS,
    FOLLOW_UPS,
    HIDING,
    BadHeader,
    check_follow_ups,
    check_foreign_headers,
    check_headers,
    sound_headers,
)
from taskapp.worker.run.request_context import RunContext

OVERWRITTEN = {"args", "kwargs", "properties", "delivery_info", "hostname", "called_directly", "is_eager"}
"""What a node puts there itself, whatever a message says."""
HARMLESS = {"logfile", "loglevel", "utc"}
GOOD = {"id": "1", "task": "a.b"}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


def test_whatever_a_run_asks_its_request_for_is_checked_or_cannot_come_from_a_message():
    asked = {name for name in {*dir(Context), *dir(RunContext)} if not name.startswith("__")}
    assert asked - {*CHECKS, *FOLLOW_UPS, *HIDING} <= OVERWRITTEN | HARMLESS


def test_the_headers_of_our_own_tasks_pass():
    options = {"time_limit": 3, "soft_time_limit": 2.5, "retries": 1, "stamped_headers": ["a"], "a": [1], "shadow": "x"}
    check_headers({**headers_of_a_task("a.b", options, "1@here"), "id": "1"})


@pytest.mark.parametrize(
    ("header", "value", "problem"),
    [
        ("task", None, "header 'task': expected `str`, got `null`"),
        ("taskapp_schedule", [], "header 'taskapp_schedule': expected `str | null`, got `array`"),
        ("timelimit", [1, "x"], "header 'timelimit[1]': expected `float | null`, got `str`"),
        ("timelimit", [float("nan"), None], "header 'timelimit[0]': expected `float` >= 0.0"),
        ("retries", None, "header 'retries': expected `int`, got `null`"),
        ("get", None, "header 'get': the name would hide an attribute of the task's request; choose another"),
        (5, 1, "headers: Expected `str`"),
    ],
)
def test_a_header_that_cannot_be_meant_is_named(header, value, problem):
    with pytest.raises(BadHeader) as caught:
        check_headers({**GOOD, header: value})
    assert str(caught.value) == problem


def test_headers_of_ones_own_may_hold_anything():
    check_headers({**GOOD, "tenant": {"a": [b"x", None]}, "x-death": [{}]})


def test_counts_that_others_write_as_null_are_taken_away():
    headers = {**GOOD, "retries": None, "replaced_task_nesting": None}
    check_foreign_headers(headers)
    assert headers == GOOD


def test_a_text_that_is_no_unicode_is_refused():
    with pytest.raises(BadHeader, match="header 'root_id'"):
        check_foreign_headers({**GOOD, "root_id": "a\udce9"})


@given(st.dictionaries(st.sampled_from([*CHECKS, *FOLLOW_UPS, *HIDING]) | st.text() | st.integers(), values))
def test_any_headers_pass_or_are_refused_and_what_is_sound_passes(headers: dict[Any, Any]):
    for check in (check_headers, check_foreign_headers, check_follow_ups):
        with suppress(BadHeader):
            check(dict(headers))
    sound = sound_headers(headers)
    check_foreign_headers(dict(sound))
    assert sound.keys() <= headers.keys()
