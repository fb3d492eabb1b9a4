from __future__ import annotations

import os
import threading
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from kombu.exceptions import EncodeError
from kombu.utils.json import JSONEncoder

from taskapp.redis.outage import Outage, ResultServerGone
from taskapp.results.backend import RedisBackend
from taskapp.results.encoding import to_json
from taskapp.results.started_delay import StartedWriter
from taskapp.results.store import Fence, fence_of
from tests.support import eventually

BACKENDS = {"redis": "taskapp.results.backend:RedisBackend", "sentinel": "taskapp.results.backend:SentinelBackend"}


def context(**parts: Any) -> Context:
    properties = {"lease": "leases-of-a-node", "delivery_tag": "1.0:0:default", "deliveries": 0}
    return Context({"id": "a", "retries": 0, "properties": {**properties, **parts.pop("properties", {})}, **parts})


def test_every_later_run_of_a_task_has_a_higher_number():
    runs = [
        context(),
        context(properties={"deliveries": 1}),
        context(properties={"deliveries": 65_535}),
        context(retries=1),
        context(retries=12),
        context(retries=12, properties={"deliveries": 2}),
        context(retries=0, replaced_task_nesting=1),
    ]

    numbers = [fence_of(run, "a", with_lease=True).run for run in runs]

    assert numbers[0] == 0
    assert numbers == sorted(set(numbers))


def test_the_fence_names_the_lease_only_where_it_can_be_looked_at():
    assert fence_of(context(), "a", with_lease=True) == Fence(0, "leases-of-a-node", "1.0:0:default")
    assert fence_of(context(), "a", with_lease=False) == Fence(0)


def test_the_run_of_a_task_says_nothing_about_the_runs_of_another():
    assert fence_of(context(retries=3), "b", with_lease=True) == Fence(-1, "leases-of-a-node", "1.0:0:default")


@pytest.mark.parametrize("request_", [None, Context(), Context({"properties": {}}), Context({"properties": {"x": 1}})])
def test_what_came_from_another_broker_has_no_fence(request_):
    assert fence_of(request_, "a", with_lease=True) == Fence()


@pytest.mark.parametrize(
    ("broker", "results", "masters", "same"),
    [
        ("redis://h/0", "redis://h/0", ("", ""), True),
        ("redis://h/0", "redis://h/1", ("", ""), False),
        ("amqp://h//", "redis://h/0", ("", ""), False),
        ("redis://h/0?db=3", "redis://h/0?db=3", ("", ""), False),
        ("sentinel://a:1/0;sentinel://b:1/0", "sentinel://a:1/0;sentinel://b:1/0", ("m", "m"), True),
        ("sentinel://a:1/0", "sentinel://a:1/0", ("m", "n"), False),
    ],
)
def test_leases_are_looked_for_only_where_the_messages_surely_are(broker, results, masters, same):
    app = Celery("unit", broker=broker, backend=results, set_as_current=False)
    app.loader.override_backends = BACKENDS
    app.conf.broker_transport_options = {"master_name": masters[0]}
    app.conf.result_backend_transport_options = {"master_name": masters[1]}

    assert app.backend._lies_beside_messages is same


def pause_until_it_gives_up(outage: Outage) -> None:
    while True:
        outage.pause(ConnectionRefusedError("Connection refused"))


def test_giving_up_says_what_for_how_long_and_what_to_do():
    outage = Outage("storing the result of task a", 0.1)

    with pytest.raises(ResultServerGone) as caught:
        pause_until_it_gives_up(outage)

    assert str(caught.value) == (
        "gave up storing the result of task a: the result server has been away for 0.1 s (Connection refused); "
        "start it, or correct TASKAPP_RESULT_URL, and try again"
    )


def test_patience_begins_anew_when_the_server_was_back(caplog):
    caplog.set_level("INFO", "taskapp.redis.trouble")
    outage = Outage("waiting", 0.15)
    outage.end()  # of whatever was away before
    caplog.clear()

    for _ in range(3):
        outage.pause(ConnectionError("away"), at_most_seconds=0.1)
        outage.end()
    outage.end()

    assert [record.action for record in caplog.records] == ["server_away", "server_back"] * 3


class Written:
    def __init__(self) -> None:
        self.records: list[Any] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def write(self, record: Any) -> None:
        self.may_go_on.wait(10)
        self.records.append(record)


def test_a_held_start_is_written_when_its_time_has_come_and_in_order():
    written = Written()
    writer = StartedWriter(written.write)

    for number in range(300):
        writer.hold(str(number), number, 0.05)
    writer.drop("7")
    eventually(lambda: len(written.records) == 299)

    assert written.records == [number for number in range(300) if number != 7]


def test_a_held_start_is_never_written_after_the_end():
    written = Written()
    written.may_go_on.clear()
    writer = StartedWriter(written.write)
    writer.hold("a", "started", 0.0)
    eventually(lambda: "a" not in writer._held)  # it is being written

    ending = threading.Thread(target=lambda: (writer.drop("a"), written.records.append("ended")))
    ending.start()
    written.may_go_on.set()
    ending.join(10)

    assert written.records == ["started", "ended"]


def test_a_forked_child_holds_starts_of_its_own():
    written = Written()
    writer = StartedWriter(written.write)
    writer.hold("of the parent", "of the parent", 30.0)
    writer._lock.acquire()  # as another thread may at the moment of the fork

    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent
        writer.drop("of the parent")
        writer.hold("of the child", "of the child", 0.0)
        eventually(lambda: written.records == ["of the child"])
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    assert written.records == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        float("nan"),
        10**30,
        "é\ud800\x00",
        {3: (1, [2])},
        datetime.now(UTC),
        uuid.uuid4(),
        Decimal("0.1"),
        b"\xff",
    ],
)
def test_results_are_written_as_kombu_writes_them(value: Any) -> None:
    assert to_json({"result": value}) == JSONEncoder().encode({"result": value})


def test_a_result_that_holds_itself_is_refused_and_the_next_is_written() -> None:
    itself: list[Any] = []
    itself.append(itself)

    with pytest.raises(EncodeError):
        RedisBackend(app=Celery("results", set_as_current=False), url="redis://nowhere.invalid").encode(itself)
    assert to_json([1]) == "[1]"
