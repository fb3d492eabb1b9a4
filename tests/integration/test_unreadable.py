"""Messages of which something cannot be read: no node ends, and the result says so."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from celery import Celery, chord
from celery.exceptions import TimeoutError as ResultTimeoutError
from kombu.utils import json as kombu_json

from taskapp.engine.dead_letters import DeadLetters
from taskapp.engine.envelope import seal
from tests.integration import unreadable
from tests.support import Process, RedisServer, eventually, leased_count

StartWorker = Callable[..., Process]
TASKS = "tests.integration.unreadable"


class NoUuid:
    """An argument that a node takes for one of the types JSON lacks, and cannot read."""


kombu_json.register_type(NoUuid, "uuid", lambda _: "none", lambda value: uuid.UUID(**value))
NO_UUID = NoUuid()
POOLS = [(), ("-P", "prefork"), ("-P", "threads"), ("-P", "solo")]


def named(options: tuple[str, ...]) -> str:
    return options[-1] if options else "default"


def push(server: RedisServer, task: str, /, *, body: Any = ((), {}, None), **headers: Any) -> str:
    """Put a task into the queue as our own producer would; return its id."""
    return push_raw(server, task, json.dumps(body), **headers)


def push_raw(server: RedisServer, task: str, body: str, /, **headers: Any) -> str:
    """Put a task with this text as its body into the queue; return its id."""
    task_id = str(uuid.uuid4())
    all_headers = {"lang": "py", "task": task, "id": task_id, "retries": 0, **headers}
    parts = (body, "application/json", "utf-8", all_headers, task_id, "", "", "default")
    server.client.lpush("default", seal(task_id, task, 0, msgspec.msgpack.encode(parts)))
    return task_id


def failure(app: Celery, task_id: str) -> str:
    error = app.AsyncResult(task_id).get(timeout=20, propagate=False)
    assert isinstance(error, Exception)
    return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("options", POOLS, ids=named)
def test_headers_nobody_can_mean_end_no_node_and_their_tasks_fail(
    app: Celery, worker: StartWorker, redis_server: RedisServer, letters: DeadLetters, options: tuple[str, ...]
) -> None:
    nested: Any = 1
    for _ in range(950):
        nested = [nested]
    name = unreadable.echo.name
    forged = {
        "taskapp_schedule": push(redis_server, name, taskapp_schedule=[]),
        "task": push(redis_server, name, task=None),
        "timelimit[1]": push(redis_server, name, timelimit=[1, "x"]),
        "get": push(redis_server, name, get=1),
    }
    deep = push(redis_server, unreadable.echo_in_child.name, deep=nested)
    node = worker(*options, TASKAPP_INCLUDE=TASKS)

    for header, task_id in forged.items():
        assert header in failure(app, task_id)
    if options in ((), ("-P", "prefork")):
        assert "recursion" in failure(app, deep).lower()
    assert unreadable.echo.delay(3).get(timeout=20) == 3
    assert unreadable.echo_in_child.delay(4).get(timeout=20) == 4
    assert node.returncode is None
    eventually(lambda: leased_count(redis_server) == 0)
    assert {letter.id for letter in letters.find()} >= set(forged.values())


@pytest.mark.parametrize("options", POOLS, ids=named)
def test_arguments_that_cannot_be_decoded_fail_the_task_its_chord_and_tell_its_errbacks(
    app: Celery, worker: StartWorker, redis_server: RedisServer, tmp_path: Path, options: tuple[str, ...]
) -> None:
    worker(*options, TASKAPP_INCLUDE=TASKS)
    told = tmp_path / "told"
    results = [
        task.apply_async((NO_UUID,), link_error=unreadable.write.s(str(told)))
        for task in (unreadable.echo, unreadable.echo_on_loop, unreadable.echo_in_child)
    ]
    body = chord([unreadable.echo.s(1), unreadable.echo.s(NO_UUID)])(unreadable.count.s())
    yaml = unreadable.echo.apply_async((2,), serializer="yaml")

    for result in results:
        assert "DecodeError" in failure(app, result.id)
    assert "DecodeError" in failure(app, body.id)
    assert "accept_content" in failure(app, yaml.id)
    eventually(lambda: told.exists() and set(told.read_text().split()) == {result.id for result in results})


@pytest.mark.parametrize("options", POOLS, ids=named)
def test_follow_ups_in_headers_that_cannot_be_sent_keep_no_failure_from_being_stored(
    app: Celery, worker: StartWorker, redis_server: RedisServer, letters: DeadLetters, options: tuple[str, ...]
) -> None:
    errback = {"task": unreadable.echo.name, "args": [1, 2], "kwargs": {}, "options": {}}
    buried = push(redis_server, unreadable.echo.name, errbacks=[errback], retries="x")
    worker(*options, TASKAPP_INCLUDE=TASKS)

    assert "retries" in failure(app, buried)
    eventually(lambda: redis_server.client.zcard("taskapp:untold") == 0)


def test_what_is_wrong_with_a_body_is_said_in_words(
    app: Celery, worker: StartWorker, redis_server: RedisServer, letters: DeadLetters
) -> None:
    worker(TASKAPP_INCLUDE=TASKS)
    name = unreadable.echo.name
    links: list[Any] = [{"task": 5}, {"task": name}, {"task": name, "options": {}}, "x"]

    broken = [push_raw(redis_server, name, body) for body in ("{", "[[1], {}", '"x"')]
    linked = [push(redis_server, name, body=((1,), {}, {"callbacks": [link]})) for link in links]
    chained = push(redis_server, name, body=((1,), {}, {"chain": [{"task": None}]}))

    for task_id in broken:
        assert failure(app, task_id).startswith("DecodeError: its body cannot be decoded: ")
    for task_id in (*linked, chained):
        assert "is not a task signature: " in failure(app, task_id)


@pytest.mark.quick("*.break_loop")
@pytest.mark.parametrize("task", [unreadable.break_loop, unreadable.break_loop_of_thread], ids=lambda task: task.name)
def test_a_task_that_breaks_the_loop_of_its_node_counts_as_a_crash_and_is_buried(
    app: Celery, worker: StartWorker, redis_server: RedisServer, letters: DeadLetters, tmp_path: Path, task: Any
) -> None:
    runs = tmp_path / "runs"
    result = task.delay(str(runs))
    for life in range(6):
        node = worker(name=f"w{life}", TASKAPP_INCLUDE=TASKS, TASKAPP_LEASE_SECONDS="1", TASKAPP_DRAIN_SECONDS="1")
        eventually(lambda: node.returncode is not None or result.ready(), 30)  # noqa: B023 - called here
        if node.returncode is None:
            break

    with pytest.raises(Exception, match="killed the process that ran it too often"):
        result.get(timeout=20)
    assert len(runs.read_text().split()) == 3
    assert [letter.reason for letter in letters.find()] == ["crashed"]


def test_commands_of_odd_form_end_no_node(app: Celery, worker: StartWorker, redis_server: RedisServer) -> None:
    node = worker(TASKAPP_INCLUDE=TASKS)
    client = redis_server.client
    topic = "/0.celery.pidbox"
    envelope = {"content-type": "application/json", "content-encoding": "utf-8", "headers": {}}
    properties = {"delivery_info": {"exchange": "celery.pidbox", "routing_key": ""}, "delivery_tag": "1"}
    bodies = [
        {"method": "add_consumer", "arguments": {"queue": []}},
        {"method": "add_consumer", "arguments": {"queue": "q", "exchange_type": "forged"}},
        *({"method": "add_consumer", "arguments": {"queue": each}} for each in (5, True, None, "", "q" * 70_000)),
        {"method": "add_consumer", "arguments": {"queue": "p", "routing_key": 5}},
        {"method": "add_consumer", "arguments": {"queue": "o", "exchange": 5}},
        *({"method": "cancel_consumer", "arguments": {"queue": odd}} for odd in (5, True, None)),
        {"method": "cancel_consumer", "arguments": {"queue": {}}},
        {"method": "time_limit", "arguments": {"task_name": unreadable.echo.name, "soft": "x", "hard": [1]}},
        {"method": "rate_limit", "arguments": {"task_name": unreadable.echo.name, "rate_limit": -1}},
        {"method": "pool_shrink", "arguments": {"n": 1e9}}, {"method": "pool_shrink", "arguments": {"n": float("nan")}},
        {"method": []}, {"method": None}, {"method": "revoke", "arguments": {"task_id": [[]]}}, [], 1, None, "x",
        {"method": "ping", "reply_to": 5}, {"method": "ping", "destination": 5}, {"arguments": 5, "method": "ping"},
    ]  # fmt: skip
    for body in bodies:
        message = {**envelope, "body": json.dumps(body), "properties": properties}
        # A failing one makes the node subscribe again.
        eventually(lambda: client.publish(topic, json.dumps(message)) == 1)  # noqa: B023 - called here
    for odd in ("", "x", "{}", "[]", json.dumps({**envelope, "body": "x", "properties": properties}), json.dumps(5)):
        client.publish(topic, odd)
    for clock in (float("inf"), "x", [], 10**40, True):
        message = {**envelope, "headers": {"clock": clock}, "body": "{}", "properties": properties}
        client.publish(topic, json.dumps(message))

    eventually(lambda: len(app.control.ping(timeout=1)) == 1)
    assert unreadable.echo.delay(3).get(timeout=20) == 3
    with pytest.raises(ResultTimeoutError):
        app.AsyncResult("none").get(timeout=0.1)
    (clock,) = app.control.inspect().clock().values()
    assert clock["clock"] < 2**60
    ((refused,),) = [answer.values() for answer in app.control.broadcast("add_consumer", {"queue": 5}, reply=True)]
    assert refused == {"error": "queue is 5; give the name of a queue"}
    assert node.returncode is None
