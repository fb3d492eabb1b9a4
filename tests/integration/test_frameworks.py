"""taskapp in Flask, FastAPI and Starlette applications, with real nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask, current_app

from taskapp import Celery, Task
from taskapp.asgi import lifespan
from taskapp.flask import Taskapp, celery_init_app
from tests.support import Process, RedisServer, free_port, start_worker

HERE = Path(__file__).parent


@pytest.fixture
def node(redis_server: RedisServer, tmp_path: Path) -> Iterator[Process]:
    worker = start_worker(
        tmp_path, redis_server.url, app="flask_shop", SHOP_BROKER=redis_server.url, PYTHONPATH=str(HERE)
    )
    yield worker
    worker.close()


def client_of(server: RedisServer) -> Celery:
    return Celery("client", broker=server.url, set_as_current=False)


@pytest.mark.parametrize("kind", ["function", "coroutine", "child"])
def test_a_task_runs_in_the_context_of_the_flask_application(
    node: Process, redis_server: RedisServer, kind: str
) -> None:
    found = [client_of(redis_server).send_task(f"shop.{kind}", (n,)).get(timeout=20) for n in range(3)]

    assert found == ["0 EUR", "1 EUR", "2 EUR"]


def test_the_extension_creates_the_app_where_flask_is_created() -> None:
    extension, app = Taskapp(), Flask("late")
    with pytest.raises(RuntimeError, match="init_app"):
        _ = extension.celery
    app.config["CELERY"] = {"broker_url": "redis://127.0.0.1:1/0", "taskapp_lease_seconds": 9}
    extension.init_app(app)

    assert extension.celery is app.extensions["celery"]
    assert (extension.celery.main, extension.celery.settings.lease_seconds) == ("late", 9)


def test_eager_coroutines_of_flask_run_to_their_end() -> None:
    app = Flask("eager")
    app.config["CELERY"] = {"task_always_eager": True}
    celery = celery_init_app(app)

    @celery.task(bind=True)
    async def name(self: Task, depth: int = 0) -> str:
        if self.request.is_eager and not self.request.retries:
            raise self.retry(countdown=0)
        return f"{current_app.name} {await self(depth - 1)}" if depth else current_app.name

    async def on_a_loop() -> list[str]:
        return [await name(), name.apply().get(), await (await name.adelay()).aget()]

    assert [name.apply().get(), name.delay(1).get()] == ["eager", "eager eager"]
    assert asyncio.run(on_a_loop()) == ["eager"] * 3


def test_eager_tasks_of_flask_see_the_application_too() -> None:
    app = Flask("eager")
    app.config.from_mapping(CURRENCY="EUR", CELERY={"task_always_eager": True})
    celery = celery_init_app(app)

    @celery.task(shared=False)
    def currency() -> str:
        from flask import current_app

        return str(current_app.config["CURRENCY"])

    assert (currency.delay().get(), currency()) == ("EUR", "EUR")


def web_of(celery: Celery, order: list[str]) -> FastAPI:
    @asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[None]:
        order.append("start")
        yield
        order.append("stop")

    web = FastAPI(lifespan=lifespan(celery, own))

    @web.post("/orders/{number}")
    async def order_of(number: int) -> dict[str, str]:
        result = await celery.tasks["shop.function"].adelay(number)
        return {"id": result.id}

    return web


def test_a_request_submits_over_a_connection_that_the_lifespan_opened(node: Process, redis_server: RedisServer) -> None:
    celery, order = client_of(redis_server), []

    @celery.task(name="shop.function", shared=False)
    def function(x: int) -> str: ...

    for _ in range(2):  # the app can be used again after it was closed
        with TestClient(web_of(celery, order)) as http:
            assert celery.submitter.open() is None
            task_id = http.post("/orders/7").json()["id"]
            assert celery.AsyncResult(task_id).get(timeout=20) == "7 EUR"
    assert order == ["start", "stop"] * 2


def test_an_application_starts_while_the_broker_is_away(caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    celery = Celery("away", broker=url, set_as_current=False, taskapp_submit_deadline_seconds=0.5)

    with caplog.at_level(logging.WARNING), TestClient(FastAPI(lifespan=lifespan(celery))):
        pass
    assert "the broker cannot be reached yet" in caplog.text
