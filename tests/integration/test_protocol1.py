"""Messages of Celery's protocol 1, as clients of stock Celery write them, run like those of protocol 2."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import msgspec
import pytest
import redis
from celery import chord, group

from taskapp import Celery
from taskapp.engine.dead_letters import DeadLetter
from taskapp.engine.envelope import named_in_json, unseal
from taskapp.transport.codec import edit_arguments, read_arguments
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
app.conf.accept_content = os.environ.get("OLD_FORMATS", "json,msgpack").split(",")

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


FORMATS = ["json", "msgpack", "yaml", "pickle"]


@pytest.fixture
def accepting(redis_server: RedisServer, tmp_path: Path) -> Iterator[Process]:
    """A node that accepts all formats."""
    (tmp_path / "old.py").write_text(TASKS)
    worker = start_worker(
        tmp_path, redis_server.url, app="old", OLD_URL=redis_server.url, OLD_FORMATS=",".join(FORMATS),
        C_FORCE_ROOT="1",
    )  # fmt: skip
    yield worker
    worker.close()


@pytest.mark.parametrize("serializer", FORMATS)
def test_a_format_that_the_app_accepts_runs(
    accepting: Process, client: Any, redis_server: RedisServer, serializer: str
) -> None:
    if serializer == "msgpack":
        pytest.importorskip("msgpack")
    due = datetime.now(UTC) + timedelta(seconds=1)
    later = client.send_task("old.note", (1,), eta=due, serializer=serializer)

    assert client.send_task("old.add", (2,), {"y": 3}, serializer=serializer).get(timeout=20) == 5
    assert client.send_task("old.again", serializer=serializer).get(timeout=20) == 2
    [note] = eventually(lambda: notes(redis_server))
    assert note[1] == later.id
    assert float(note[0]) > due.timestamp() - 0.5


@pytest.mark.parametrize("serializer", ["yaml", "pickle"])
def test_a_format_that_the_app_does_not_accept_is_kept_as_a_dead_letter(
    node: Process, client: Any, redis_server: RedisServer, serializer: str
) -> None:
    client.send_task("old.add", (2,), serializer=serializer)

    [letter] = eventually(lambda: letters(redis_server))
    assert "is not in accept_content ['json', 'msgpack']" in letter.error
    assert client.send_task("old.add", (1, 1)).get(timeout=20) == 2


def letters(server: RedisServer) -> list[DeadLetter]:
    with Celery("reader", broker=server.url, set_as_current=False).engine() as engine:
        return engine.dead_letters.find()


def test_a_message_in_messagepack_has_its_name(client: Any) -> None:
    packed = b64encode(msgspec.msgpack.encode({"task": "old.add", "id": "one"})).decode()
    message = {"headers": {}, "body": packed, "properties": {"body_encoding": "base64"}}

    assert named_in_json(json.dumps({**message, "content-type": "application/x-msgpack"}).encode()) == (
        "one",
        "old.add",
    )
    assert named_in_json(json.dumps({**message, "content-type": "application/json"}).encode()) == ("", "")


def test_a_dead_letter_has_its_name_and_arguments(redis_server: RedisServer, client: Any) -> None:
    """Though it was never claimed: a node has crashed too often, or could not read its headers."""
    sent = client.send_task("old.add", (2,), {"y": 3})
    with redis.Redis.from_url(redis_server.url) as raw:
        envelope = unseal(raw.lindex("old", 0))

    assert named_in_json(envelope.body) == (sent.id, "old.add")
    assert read_arguments(envelope.body) == ([2], {"y": 3})
    assert read_arguments(edit_arguments(envelope.body, [7], None)) == ([7], {"y": 3})


def test_a_dead_letter_is_sent_again_with_other_arguments(
    node: Process, client: Any, redis_server: RedisServer
) -> None:
    failed = client.send_task("old.fail")
    [letter] = eventually(lambda: letters(redis_server))
    assert (letter.id, letter.task) == (failed.id, "old.fail")
    with Celery("reader", broker=redis_server.url, set_as_current=False).engine() as engine:
        blob = edit_arguments(letter.raw, [1, 2], None)
        assert engine.dead_letters.replay(letter.queue, letter.number, blob=blob)
    again = eventually(lambda: [one for one in letters(redis_server) if "takes 0 positional" in one.error])
    assert again[0].id == failed.id


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
