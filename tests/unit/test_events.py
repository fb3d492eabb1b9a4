"""Events that taskapp builds, compared with those that Celery makes."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.events.dispatcher import EventDispatcher

from taskapp.worker.consume.events import Dispatcher

FIELDS: dict[str, Any] = {"uuid": "an-id", "name": "jobs.add", "retries": 2}


def dispatcher_of(kind: Any, **options: Any) -> Any:
    """Return one that keeps what it is given, as a node's does."""
    dispatcher = kind(app=Celery("events", set_as_current=False), hostname="w1@host", enabled=False, **options)
    dispatcher.enabled = True
    return dispatcher


def kept_by(dispatcher: Any) -> list[dict[str, Any]]:
    return list(dispatcher._group_buffer["task"])


@pytest.mark.parametrize("more", [{}, {"timestamp": 17.0}, {"utcoffset": lambda: 5}, {"blind": True}])
def test_an_event_of_a_task_says_what_celerys_says(more: dict[str, Any]) -> None:
    kept = []
    for kind in (EventDispatcher, Dispatcher):
        dispatcher = dispatcher_of(kind, buffer_group=frozenset({"task"}))
        dispatcher.send("task-started", **FIELDS, **more)
        (event,) = kept_by(dispatcher)
        kept.append(event)

    celerys, ours = kept
    assert ours.keys() == celerys.keys()
    assert ours.pop("timestamp") == pytest.approx(celerys.pop("timestamp"), abs=5)
    assert ours == celerys
    assert FIELDS.keys() == {"uuid", "name", "retries"}, "what the caller gave stays as it was"


def test_events_that_nobody_asked_for_are_not_kept() -> None:
    grouped = {"buffer_group": frozenset({"task"})}
    other, off = dispatcher_of(Dispatcher, groups={"worker"}, **grouped), dispatcher_of(Dispatcher, **grouped)
    off.enabled = False

    for dispatcher in (other, off):
        dispatcher.send("task-started", **FIELDS)

        assert kept_by(dispatcher) == []


def test_a_full_buffer_goes_out_and_one_that_is_not_asks_for_it() -> None:
    dispatcher = dispatcher_of(Dispatcher, buffer_group=frozenset({"task"}), buffer_limit=3)
    done: list[str] = []
    dispatcher.flush = lambda: done.append("flushed")
    dispatcher.on_send_buffered = lambda: done.append("asked")

    for _ in range(3):
        dispatcher.send("task-started", **FIELDS)

    assert done == ["asked", "asked", "flushed"]
