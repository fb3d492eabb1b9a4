"""Properties of AMQP that a task is submitted with, such as ``message_id`` and ``expiration``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from celery import Celery, group, signals
from celery.exceptions import TaskRevokedError

from taskapp.errors.tasks import BadMessageProperty
from tests.integration import follow_ups
from tests.support import Process, RedisServer, eventually, start_worker

GIVEN = {"message_id": "m-1", "app_id": "shop", "user_id": "ada", "type": "order", "cluster_id": "c", "timestamp": 17}
WAYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "apply_async": lambda given: follow_ups.properties.apply_async(**given),
    "send_task": lambda given: follow_ups.properties.app.send_task(follow_ups.properties.name, **given),
    "kombu": lambda given: follow_ups.properties.apply_async(exchange="default", routing_key="default", **given),
    "many": lambda given: follow_ups.properties.submit_many([()], **given)[0],
    "set": lambda given: group([follow_ups.properties.s().set(**given)]).apply_async()[0],
    "delayed": lambda given: follow_ups.properties.apply_async(countdown=0.2, **given),
}


def test_a_task_that_nobody_claims_in_time_expires(app: Celery, worker: Callable[..., Process]) -> None:
    late, in_time = (follow_ups.properties.apply_async(expiration=seconds) for seconds in (0.2, 60))
    with app.connection() as connection:
        app.amqp.queues["default"].bind(connection.default_channel).declare()
    by_kombu = follow_ups.properties.apply_async(expiration=0.2, exchange="default", routing_key="default")
    time.sleep(0.5)
    worker("-Q", "default", TASKAPP_INCLUDE=follow_ups.__name__)

    for expired in (late, by_kombu):
        with pytest.raises(TaskRevokedError, match="expired"):
            expired.get(timeout=20)
    assert in_time.get(timeout=20)["expiration"] == "60000"


@pytest.fixture(scope="module")
def node(
    session_server: RedisServer, _web_process: Celery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    _web_process.set_current()
    node = start_worker(tmp_path_factory.mktemp("node"), session_server.url, TASKAPP_INCLUDE=follow_ups.__name__)
    yield node
    node.close()
    session_server.client.flushall()


@pytest.mark.parametrize("way", WAYS)
def test_they_reach_the_task(node: Process, way: str) -> None:
    seen = WAYS[way]({**GIVEN, "expiration": 30}).get(timeout=20)

    assert {name: seen.get(name) for name in GIVEN} == GIVEN
    assert seen["expiration"] == "30000"
    assert seen["correlation_id"]


def test_texts_may_be_anything_and_none_is_nothing(node: Process) -> None:
    number = UUID(int=7)

    seen = follow_ups.properties.apply_async(message_id=number, app_id=None, timestamp=1.9).get(timeout=20)

    assert (seen["message_id"], seen["timestamp"]) == (str(number), 1)
    assert "app_id" not in seen


def test_what_listens_before_a_submit_sees_and_sets_them(node: Process) -> None:
    def on_submit(properties: dict[str, Any], **_: Any) -> None:
        assert properties["message_id"] == "m"
        properties["app_id"] = "set"

    signals.before_task_publish.connect(on_submit)
    try:
        seen = follow_ups.properties.apply_async(message_id="m").get(timeout=20)
    finally:
        signals.before_task_publish.disconnect(on_submit)

    assert (seen["message_id"], seen["app_id"]) == ("m", "set")


@pytest.mark.parametrize(
    "given",
    [{"expiration": "soon"}, {"expiration": -1}, {"expiration": float("nan")}, {"timestamp": datetime.now(UTC)}],
)
def test_what_is_no_number_is_refused(node: Process, given: dict[str, Any]) -> None:
    for options in ({}, {"exchange": "default", "routing_key": "default"}):
        with pytest.raises(BadMessageProperty, match=next(iter(given))):
            follow_ups.properties.apply_async(**given, **options)


def test_it_counts_from_when_the_task_is_due_and_not_for_its_retries(
    node: Process, session_server: RedisServer
) -> None:
    delayed = follow_ups.properties.apply_async(countdown=1.5, expiration=1)
    retried = follow_ups.retry_once.apply_async(expiration=1)

    assert delayed.get(timeout=20)["expiration"] == "1000"
    assert retried.get(timeout=20) == [1, None]
    eventually(lambda: not session_server.client.exists("taskapp:dead:default"))
