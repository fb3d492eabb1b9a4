"""A plain ``celery.Celery`` next to ours behaves as if taskapp were not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import RedisServer, clean_environment

HERE = Path(__file__).parent
LIBRARIES = ("celery", "kombu", "billiard", "vine", "amqp", "redis")
OF_THE_APP = {
    "celery._state._on_app_finalizers": "ours, which warns of a stock app that takes shared task types away",
    "celery.signals.worker_init": "our receiver, which looks whether the worker is ours",
    "kombu.utils.json._encoders": "a type of ours more, in kombu's registry of types",
    "kombu.utils.json._decoders": "the same",
    "kombu.transport._transport_cache": "kombu's cache of classes by their names",
    "kombu.pools.connections": "our pools, under keys that no plain connection has",
    "kombu.pools.producers": "the same",
}
"""What importing and using taskapp may change, all of it by public ways: registries that grow, and the default app."""
MADE_AT_FIRST_USE = {"kombu.utils.compat._environment", "redis.observability.providers._observability_instance"}
"""What the libraries keep when anybody first connects."""
PROXIES = ("current_app", "default_app", "celery.registry.tasks")
"""Names of Celery for the app that is current: a @shared_task called in a web server's thread finds ours."""


def answer(*command: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=100, env=clean_environment(**environment),
        cwd=HERE.parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def modules(session_server: RedisServer) -> str:
    """Those of their modules that taskapp imports to submit and to run a task here."""
    code = (
        "import json, sys, taskapp.celery; from taskapp.tasks import add; add.apply((1, 2)); add.delay(1, 2);"
        f"print(json.dumps([name for name in sys.modules if name.split('.')[0] in {LIBRARIES}]))"
    )
    found = ",".join(answer("-c", code, TASKAPP_BROKER_URL=session_server.url))
    session_server.client.flushall()
    return found


def test_nothing_of_celery_or_kombu_is_another_one_after_taskapp_was_imported_and_used(
    redis_server: RedisServer, modules: str
) -> None:
    changed = answer(str(HERE / "snapshots.py"), modules, TASKAPP_BROKER_URL=redis_server.url)

    changed = {
        place: how for place, how in changed.items() if not place.endswith(PROXIES) and place not in MADE_AT_FIRST_USE
    }
    assert {place: how for place, how in changed.items() if place not in OF_THE_APP} == {}
    assert set(changed.values()) == {"has grown"}


def test_a_plain_app_does_beside_ours_what_it_does_alone(redis_server: RedisServer) -> None:
    """Canvas, eager and on a worker; ``current_task`` in threads; task types, logs, and what follows a fork."""
    alone = answer(str(HERE / "plain_app.py"))
    beside = answer(str(HERE / "plain_app.py"), "beside", TASKAPP_BROKER_URL=redis_server.url)

    assert beside == alone
    assert alone["eager"] == alone["worker"]


EAGER = """
import asyncio, json, threading, celery
from concurrent.futures import ThreadPoolExecutor
from celery import current_task
from taskapp.celery import app

async def look():
    await asyncio.sleep(0.01)
    return current_task.request.id if current_task else None

@app.task(bind=True)
async def spread(self):
    gathered = await asyncio.gather(look(), look())
    async with asyncio.TaskGroup() as several:
        grouped = [several.create_task(look()) for _ in range(2)]
    apart = await asyncio.to_thread(lambda: [self.request.id, current_task.request.id])
    nested = inner.apply(task_id=self.request.id + "-inner").get()
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.01)
    except TimeoutError:
        timed_out = current_task.request.id
    return [self.request.id, *gathered, *(each.result() for each in grouped), *apart, timed_out, await look()], nested

@app.task
async def inner():
    return [await look(), *await asyncio.gather(look(), look())]

def run(task_id):
    mine, nested = spread.apply(task_id=task_id).get()
    return sorted({*mine}), sorted({*nested}), bool(current_task)

async def on_a_loop():
    return run("looped")

with ThreadPoolExecutor(8) as threads:
    print(json.dumps({
        "main": run("main"), "looped": asyncio.run(on_a_loop()),
        "threads": list(threads.map(run, [str(number) for number in range(16)])),
        "stack": type(celery._state._task_stack).__module__,
    }))
"""


def test_eager_coroutines_see_their_own_task_wherever_they_run_and_celerys_stack_stays_celerys(
    session_server: RedisServer,
) -> None:
    seen = answer("-c", EAGER, TASKAPP_BROKER_URL=session_server.url)

    assert seen["stack"] == "celery.utils.threads"
    assert seen["main"] == [["main"], ["main-inner"], False]
    assert seen["looped"] == [["looped"], ["looped-inner"], False]
    assert seen["threads"] == [[[str(number)], [f"{number}-inner"], False] for number in range(16)]
