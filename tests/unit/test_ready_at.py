"""Since when a task may run, as its headers say, and who goes by it."""

from __future__ import annotations

from datetime import UTC, datetime
from time import time
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.utils.limits import TokenBucket

from taskapp.transport.codec import READY_AT_HEADER, SENT_AT_HEADER, ready_at_of
from taskapp.worker.consume.completion import NOTHING
from taskapp.worker.consume.consumer import Consumer
from taskapp.worker.consume.counted import counted
from taskapp.worker.run.request_context import RunContext

SENT_AT, READY_AT = 1_000.0, 1_500.0


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


REDELIVERED = {"delivery_info": {"redelivered": True}}
KNOWN = [
    ({}, SENT_AT),
    ({"eta": at(1_200)}, 1_200.0),
    ({"eta": at(900)}, SENT_AT),
    ({"eta": "soon"}, None),
    ({"eta": 3}, None),
    ({SENT_AT_HEADER: None}, None),
    ({SENT_AT_HEADER: float("nan")}, None),
    ({"delivery_info": {"redelivered": False}}, SENT_AT),
    (REDELIVERED, None),
    ({**REDELIVERED, "eta": at(1_200)}, None),
    ({**REDELIVERED, READY_AT_HEADER: READY_AT}, READY_AT),
    ({READY_AT_HEADER: READY_AT, "eta": at(9_999)}, READY_AT),
    ({READY_AT_HEADER: None}, SENT_AT),
    ({READY_AT_HEADER: "x"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "ready_at"), KNOWN)
def test_a_task_may_run_from_the_moment_its_message_says(headers: dict[str, Any], ready_at: float | None) -> None:
    assert ready_at_of({SENT_AT_HEADER: SENT_AT, **headers}) == ready_at


@pytest.mark.parametrize(("headers", "ready_at"), KNOWN)
def test_the_wait_that_is_counted_begins_then(headers: dict[str, Any], ready_at: float | None) -> None:
    known = {SENT_AT_HEADER: SENT_AT, **headers}
    request = SimpleNamespace(request_dict=known, type="shop.pay", time_start=2_000.0, seen=NOTHING)

    run = counted(request, "FAILURE", 0.25)

    assert run.wait_seconds == (None if ready_at is None else 2_000.25 - ready_at)


def test_a_run_passes_it_on_to_no_other_task() -> None:
    request = RunContext({"id": "a", READY_AT_HEADER: READY_AT, "mine": 1})

    assert request.headers == {"mine": 1}
    assert request.as_execution_options()["headers"] == {"mine": 1}


class Held:
    """A request of another broker."""

    def __init__(self) -> None:
        self.id, self.message = "a", SimpleNamespace(channel=None)
        self.request_dict = {SENT_AT_HEADER: SENT_AT}


@pytest.mark.parametrize("name", ["_limit_task", "_limit_post_eta"])
def test_on_another_broker_a_task_of_limited_rate_may_run_from_its_turn(name: str) -> None:
    consumer, later, ran = object.__new__(Consumer), [], []
    consumer.timer = SimpleNamespace(call_after=lambda seconds, call, args, **_: later.append((call, args)))
    consumer.qos = SimpleNamespace(decrement_eventually=lambda: None)
    consumer._limit_order, consumer.on_task_request = 0, ran.append
    bucket, (first, second) = TokenBucket(0.001), (Held(), Held())

    for request in (first, second):
        getattr(consumer, name)(request, bucket, 1)
    assert (ran, ready_at_of(first.request_dict)) == ([first], SENT_AT)
    bucket._tokens = 1.0
    [(call, args)] = later
    call(*args)

    assert ran == [first, second]
    assert time() - 60 < (ready_at_of(second.request_dict) or 0.0) <= time()
