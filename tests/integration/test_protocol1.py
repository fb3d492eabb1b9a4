"""Messages of Celery's protocol 1, as clients of stock Celery write them, run like those of protocol 2."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import chord, group

from tests.support import Process, RedisServer, eventually, start_worker

TASKS = """
import os
import time
import redis
from taskapp import Celery
URL = os.environ["OLD_URL"]
client = redis.Redis.from_url(URL)
app = Celery("old", broker=URL, backend=URL)
app.conf.update(task_default_queue="old", task_default_exchange="old", task_default_routing_key="old")

@app.task(name="old.add")
def add(x, y=0):
    return x + y

@app.task(name="old.sum")
def total(numbers):
    return sum(numbers)

@app.task(name="old.note", bind=True)
def note(self, *args, **kwargs):
    request = self.request
    client.rpush("notes", f"{time.time()} {request.id} {request.eta} {request.retries} {request.timelimit}")

@app.task(name="old.fail")
def fail():
    raise ValueError("failed")

@app.task(name="old.again", bind=True)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries

@app.task(name="old.mourn")
def mourn(task_id):
    client.set("mourned", task_id)
"""


@pytest.fixture
def node(redis_server: RedisServer, tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "old.py").write_text(TASKS)
    worker = start_worker(tmp_path, redis_server.url, app="old", OLD_URL=redis_server.url)
    yield worker
    worker.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Any:
    app = celery.Celery("client", broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    app.conf.update(
        task_protocol=1, task_default_queue="old", task_default_exchange="old", task_default_routing_key="old"
    )
    return app


def notes(server: RedisServer) -> list[list[str]]:
    return [entry.split(" ", 4) for entry in server.client.lrange("notes", 0, -1)]


def test_a_task_runs_with_its_arguments(node: Process, client: Any) -> None:
    assert client.send_task("old.add", (2,), {"y": 3}).get(timeout=20) == 5


@pytest.mark.parametrize("serializer", ["yaml", "pickle"])
def test_formats_that_are_read_only_where_the_task_runs_are_kept_as_dead_letters(
    node: Process, client: Any, redis_server: RedisServer, serializer: str
) -> None:
    client.send_task("old.add", (2,), serializer=serializer)

    assert eventually(lambda: redis_server.client.keys("taskapp:{old}:dead:raw"))
    assert client.send_task("old.add", (1, 1)).get(timeout=20) == 2


def test_retries_and_results_follow_as_usual(node: Process, client: Any) -> None:
    assert client.send_task("old.again").get(timeout=20) == 2


def test_a_due_time_and_limits_are_kept(node: Process, client: Any, redis_server: RedisServer) -> None:
    due = datetime.now(UTC) + timedelta(seconds=2)
    results = [
        client.send_task("old.note", eta=due, time_limit=30, soft_time_limit=20),
        client.send_task("old.note", eta=due.replace(tzinfo=None)),
        client.send_task("old.note", countdown=2),
    ]
    began = eventually(lambda: found if len(found := notes(redis_server)) == len(results) else [])

    assert {entry[1] for entry in began} == {result.id for result in results}
    assert all(float(entry[0]) > due.timestamp() - 0.5 for entry in began)
    assert [entry[4] for entry in began if entry[1] == results[0].id] == ["[30, 20]"]


def test_an_expired_task_is_revoked(node: Process, client: Any) -> None:
    result = client.send_task("old.add", (1,), expires=datetime.now(UTC) - timedelta(minutes=1))

    eventually(lambda: result.state == "REVOKED")


def test_links_and_errbacks_are_called(node: Process, client: Any, redis_server: RedisServer) -> None:
    follower, mourner = client.signature("old.note"), client.signature("old.mourn")
    client.send_task("old.add", (1, 2), link=follower)
    failed = client.send_task("old.fail", link_error=mourner)

    assert eventually(lambda: notes(redis_server))
    assert eventually(lambda: redis_server.client.get("mourned")) == failed.id


def test_a_chord_ends(node: Process, client: Any) -> None:
    add, total = client.signature("old.add"), client.signature("old.sum")
    header = group(add.clone((number, 1)) for number in range(5))

    assert chord(header, app=client)(total).get(timeout=20) == 15


@pytest.mark.parametrize("body", [{"id": "x"}, {"task": "old.add"}, {"task": "old.add", "id": "x", "args": 5}, 7, "{"])
def test_what_is_no_task_is_a_dead_letter(node: Process, client: Any, redis_server: RedisServer, body: Any) -> None:
    with client.connection_for_write() as connection:
        producer = connection.Producer(serializer="json")
        producer.publish(body, routing_key="old", exchange="old", headers={})
    good = client.send_task("old.add", (1, 1))

    assert good.get(timeout=20) == 2
    assert eventually(lambda: redis_server.client.keys("taskapp:{old}:dead:raw"))
    assert node.returncode is None
