"""Workers of stock Celery and nodes on the same queues of one Redis, as during a rolling move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import chord, group

from taskapp import Celery
from taskapp.redis.keys import Keys
from tests.support import Process, RedisServer, eventually, start_worker

TASKS = """
import os
import time
import redis
if os.environ["SIDE"] == "stock":
    from celery import Celery
else:
    from taskapp import Celery
URL = os.environ["SIDE_URL"]
client = redis.Redis.from_url(URL)
app = Celery("side", broker=URL, backend=URL)
app.conf.update(task_default_queue="shared", task_default_exchange="shared", task_default_routing_key="shared")

@app.task(name="side.mark", bind=True)
def mark(self):
    client.rpush("runs", f"{self.request.id} {os.environ['SIDE']}")

@app.task(name="side.add")
def add(x, y):
    time.sleep(0.02)
    client.sadd("sides", os.environ["SIDE"])
    return x + y

@app.task(name="side.length")
def length(text):
    return len(text)

@app.task(name="side.sum")
def total(numbers):
    return sum(numbers)
"""
COUNT = 500


@pytest.fixture
def sides(redis_server: RedisServer, tmp_path: Path) -> Iterator[dict[str, Process]]:
    """Start a worker of stock Celery and a node that consume the same queue."""
    (tmp_path / "side.py").write_text(TASKS)
    environment = {"app": "side", "SIDE_URL": redis_server.url}
    pool = {"stock": ("-P", "solo"), "ours": ()}
    workers = {
        side: start_worker(tmp_path, redis_server.url, *pool[side], name=side, SIDE=side, **environment)
        for side in pool
    }
    yield workers
    for worker in workers.values():
        worker.close()


def producer(side: str, url: str) -> Any:
    kind: Any = celery.Celery if side == "stock" else Celery
    app = kind("producer", broker=url, backend=url, set_as_current=False)
    app.conf.update(task_default_queue="shared", task_default_exchange="shared", task_default_routing_key="shared")
    return app


def test_each_task_runs_once_and_those_of_taskapp_on_nodes_alone(
    sides: dict[str, Process], redis_server: RedisServer
) -> None:
    apps = {side: producer(side, redis_server.url) for side in sides}
    sent: dict[str, set[str]] = {side: set() for side in sides}
    for number in range(COUNT):
        for side, app in apps.items():
            sent[side].add(app.send_task("side.mark", ignore_result=True, priority=number % 10).id)

    eventually(lambda: redis_server.client.llen("runs") >= 2 * COUNT, within_seconds=60)
    runs = [entry.split() for entry in redis_server.client.lrange("runs", 0, -1)]

    assert Counter(identity for identity, _ in runs) == Counter(sent["stock"] | sent["ours"])
    assert {side for identity, side in runs if identity in sent["ours"]} == {"ours"}
    assert "Received and deleted unknown message" not in sides["stock"].output()
    eventually(lambda: not any(map(redis_server.client.llen, Keys().waiting("shared"))))


def test_a_node_takes_what_an_older_version_left_in_kombus_lists(redis_server: RedisServer, tmp_path: Path) -> None:
    app = producer("ours", redis_server.url)
    results = [app.send_task("side.add", (number, 1), priority=number % 10) for number in range(50)]
    for priority in range(10):
        redis_server.client.rename(Keys().ready("shared", priority), Keys().kombu("shared", priority))
    redis_server.client.delete(Keys()("wake", "shared"))
    (tmp_path / "side.py").write_text(TASKS)

    node = start_worker(
        tmp_path, redis_server.url, name="new", app="side", SIDE="ours", SIDE_URL=redis_server.url
    )  # fmt: skip
    try:
        assert [result.get(timeout=20) for result in results] == [number + 1 for number in range(50)]
    finally:
        node.close()


def test_a_consumer_without_acknowledgement_gets_what_either_kind_of_client_pushes(redis_server: RedisServer) -> None:
    app = producer("ours", redis_server.url)
    with app.connection_for_write() as connection, producer("stock", redis_server.url).connection() as stock:
        connection.SimpleBuffer("mine").put({"from": "ours"})
        stock.SimpleBuffer("mine").put({"from": "stock"})
        buffer = connection.SimpleBuffer("mine")
        got = [buffer.get(timeout=5).payload["from"] for _ in range(2)]

    assert sorted(got) == ["ours", "stock"]


def test_a_chord_of_a_stock_client_ends_wherever_its_header_ran(
    sides: dict[str, Process], redis_server: RedisServer
) -> None:
    app = producer("stock", redis_server.url)
    add, total = (app.signature(f"side.{name}") for name in ("add", "sum"))

    def both_take_part() -> bool:
        """Run a chord: a stock worker that is fast may take all of one before our node looks."""
        header = group(add.clone((number, 1)) for number in range(40))
        assert chord(header, app=app)(total).get(timeout=30) == sum(range(1, 41))
        return redis_server.client.smembers("sides") == {"stock", "ours"}

    eventually(both_take_part)


@pytest.mark.parametrize("text", ["\ud800", "a\ud800" * 300])
def test_a_text_with_lone_surrogates_that_a_stock_client_sends_runs(
    redis_server: RedisServer, tmp_path: Path, text: str
) -> None:
    """Celery shows arguments as they are; only ours are escaped."""
    (tmp_path / "side.py").write_text(TASKS)
    node = start_worker(tmp_path, redis_server.url, app="side", SIDE_URL=redis_server.url, SIDE="ours")
    client = celery.Celery("client", broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    client.conf.update(task_default_queue="shared", task_default_exchange="shared", task_default_routing_key="shared")
    try:
        assert client.send_task("side.length", (text,), {}).get(timeout=20) == len(text)
    finally:
        node.close()
