"""Tasks in a format other than JSON: whatever the format can represent arrives, on every path that a task can take."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from kombu import serialization

from taskapp import Celery
from taskapp.errors import InvalidPayload, PayloadTooLarge
from taskapp.outbox.capture import capture
from taskapp.outbox.pushing import RowPusher
from tests.support import Process, RedisServer, start_worker

HERE = Path(__file__).parent


@pytest.fixture(params=["json", "pickle"])
def project(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The module of the project in this process, and a node of it."""
    variables = {"PROJ_BROKER": redis_server.url, "PROJ_RESULTS": request.param}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(HERE)
    sys.modules.pop("pickled", None)
    import pickled

    node: Process = start_worker(
        tmp_path, redis_server.url, app="pickled", PYTHONPATH=str(HERE), C_FORCE_ROOT="1", **variables
    )
    yield pickled
    node.close()
    sys.modules.pop("pickled", None)


def test_what_json_cannot_represent_arrives_on_every_path(project: Any) -> None:
    largest, all_in = project.largest, project.all_in
    assert largest.delay({1, 2}).get(timeout=20) == 2
    assert largest.apply_async(({1, 2},), {}, countdown=0.1, priority=3).get(timeout=20) == 2
    assert project.app.send_task("pickled.largest", ({5},)).get(timeout=20) == 5
    assert [result.get(timeout=20) for result in largest.submit_many([({1},), ({2},)])] == [1, 2]
    assert project.in_child.delay({1}).get(timeout=20) == "set"
    assert project.again.delay({1}).get(timeout=20) == "set"
    assert project.with_follow_ups.delay({4}).get(timeout=20) == 4
    assert group(largest.s({n}) for n in range(3))().get(timeout=20) == [0, 1, 2]
    assert chain(largest.si({1}), largest.si({2, 3}))().get(timeout=20) == 3
    assert chord([largest.s({n}) for n in range(3)], all_in.s({1, 2}))().get(timeout=20) == ["set", 1, 2]
    linked = largest.apply_async(({1},), link=largest.si({7}))
    linked.get(timeout=20)
    assert [child.get(timeout=20) for child in linked.children] == [7]


def as_sets() -> None:
    """Register a format that a project has written for itself."""
    serialization.register(
        "sets", lambda content: json.dumps(content, default=list), json.loads, "application/x-sets", "utf-8"
    )


BROKERS: dict[str, Callable[[RedisServer], str]] = {"engine": lambda server: server.url, "kombu": lambda _: "memory://"}


@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("serializer", ["pickle", "sets"])
def test_the_serializer_decides_what_is_refused(redis_server: RedisServer, broker: str, serializer: str) -> None:
    as_sets()
    app = Celery(
        "formats", broker=BROKERS[broker](redis_server), backend=redis_server.url, task_serializer=serializer,
        accept_content=[serializer, "json"], set_as_current=False,
    )  # fmt: skip
    app.send_task("x", ({1, 2},), {"by": {3}})
    with pytest.raises(PayloadTooLarge, match="take 2000"):
        app.send_task("x", ("y" * 2_000_000,))
    with pytest.raises(InvalidPayload, match=f"only values that {serializer} can represent"):
        app.send_task("x", (lambda: None,))
    with pytest.raises(InvalidPayload, match="only values that JSON can represent"):
        app.send_task("x", ({1, 2},), serializer="json")


@pytest.mark.parametrize("text", ["\ud800", "\ud800" * 300])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_lone_surrogate_is_shown_escaped(redis_server: RedisServer, serializer: str, text: str) -> None:
    app = Celery("formats", broker=redis_server.url, task_serializer=serializer, set_as_current=False)
    app.send_task("x", (text,), {"by": text})


@pytest.mark.parametrize("text", ["\ud800", "\ud800" * 300])
@pytest.mark.parametrize("broker", ["rabbitmq", "outbox"])
def test_it_is_escaped_on_the_way_through_kombu(
    redis_server: RedisServer, request: pytest.FixtureRequest, broker: str, text: str
) -> None:
    url = redis_server.url if broker == "outbox" else request.getfixturevalue("rabbitmq_url")
    app = Celery("formats", broker=url, backend=redis_server.url, set_as_current=False)

    @app.task(name="formats.length", shared=False)
    def length(text: str) -> int:
        return len(text)

    if broker == "outbox":
        [row] = capture(length, (text,), {}, {}, None).rows
        outcome = RowPusher(app).push([row])
        assert (len(outcome.pushed), list(outcome.refused)) == (1, [])
        return
    length.delay(text)
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        message = queue.get(timeout=20)
        message.ack()
    message.headers["argsrepr"].encode()
