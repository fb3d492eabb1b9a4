"""Chords that stock Celery has begun: nodes finish them, in whichever way their parts end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery
import pytest
from celery import chain, chord, group
from celery.contrib.testing.worker import start_worker as start_here

from tests.support import Process, RedisServer, eventually

StartWorker = Callable[..., Process]


@pytest.fixture
def stock(redis_server: RedisServer) -> celery.Celery:
    """An app of stock Celery, whose tasks are not registered here."""
    return celery.Celery(
        "stock", broker=redis_server.url, backend=redis_server.url, set_as_current=False, task_default_queue="default"
    )


def part(app: celery.Celery, name: str, *args: Any, **options: Any) -> Any:
    return app.signature(f"begun.{name}", args, options=options, app=app)


HEADERS: dict[str, Any] = {  # the sum of each is 3
    "plain": lambda add: [add(n) for n in range(3)],
    "retried": lambda add: [add(0), add("later"), add(2)],
    "chains": lambda add: [chain(add(5), add.more(-5)), add(1), chain(add(1), add.more(1))],
    "nested": lambda add: [add(0), group(add(1), add(2))],
}


class Adder:
    def __init__(self, app: celery.Celery) -> None:
        self.app = app

    def __call__(self, value: Any) -> Any:
        return part(self.app, "number", value)

    def more(self, value: Any) -> Any:
        return part(self.app, "plus", value)


@pytest.mark.quick("plain-own", "nested-own")
@pytest.mark.parametrize("pool", [(), ("-P", "prefork")], ids=["own", "prefork"])
@pytest.mark.parametrize("kind", HEADERS)
def test_a_chord_that_stock_celery_has_begun_ends_on_nodes(
    worker: StartWorker, stock: celery.Celery, app: celery.Celery, kind: str, pool: tuple[str, ...]
) -> None:
    began = chord(HEADERS[kind](Adder(stock)), part(stock, "total"), app=stock).apply_async()
    worker(*pool, TASKAPP_INCLUDE="tests.integration.begun")

    assert app.AsyncResult(began.id).get(timeout=30) == 3


def test_a_chord_that_stock_celery_has_begun_fails_on_nodes(
    worker: StartWorker, stock: celery.Celery, app: celery.Celery
) -> None:
    header = [part(stock, "number", 1), part(stock, "fail")]
    began = chord(header, part(stock, "total"), app=stock).apply_async()
    worker(TASKAPP_INCLUDE="tests.integration.begun")

    with pytest.raises(celery.exceptions.ChordError, match="of begun"):
        app.AsyncResult(began.id).get(timeout=30)


def test_parts_that_a_stock_worker_has_run_count(
    worker: StartWorker, stock: celery.Celery, app: celery.Celery, redis_server: RedisServer
) -> None:
    @stock.task(name="begun.number")
    def number(value: int) -> int:
        return value

    header = [part(stock, "number", n, queue="early" if n else "default") for n in range(3)]
    began = chord(header, part(stock, "total"), app=stock).apply_async()
    with start_here(stock, perform_ping_check=False, pool="solo", queues="early", loglevel="WARNING"):
        eventually(lambda: redis_server.client.llen("early") == 0 and len(_ended(redis_server)) == 2)
    worker(TASKAPP_INCLUDE="tests.integration.begun")

    assert app.AsyncResult(began.id).get(timeout=30) == 3


def _ended(server: RedisServer) -> list[str]:
    return list(server.client.scan_iter("celery-task-meta-*"))


def test_chords_of_nodes_are_counted_by_the_engine(
    worker: StartWorker, app: celery.Celery, redis_server: RedisServer
) -> None:
    worker(TASKAPP_INCLUDE="tests.integration.begun")
    began = chord([part(app, "number", n) for n in range(3)], part(app, "total"), app=app).apply_async(queue="default")

    assert began.get(timeout=30) == 3
    assert not list(redis_server.client.scan_iter("celery-taskset-meta-*"))
