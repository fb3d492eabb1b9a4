"""Results in other stores than Redis: awaited, and failures there that were set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from taskapp.client.protocol import new_id
from taskapp.monitor.task_state.outcome import read_outcome
from tests.integration import follow_ups
from tests.support import RedisServer, clean_environment, run_python, start_worker

METAS = [
    {"why": "custom"},
    "just text",
    [1, 2],
    7,
    None,
    {"exc_type": "NoSuch", "exc_message": "x", "exc_module": "no"},
]
STORES = {
    "sqlite": "db+sqlite:///{}/results.sqlite",
    "file": "file://{}",
    "memory": "cache+memory://",
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("meta", METAS, ids=repr)
def test_a_failure_that_was_set_by_hand_can_be_read(store: str, meta: Any, tmp_path: Path) -> None:
    app = Celery("shop", backend=STORES[store].format(tmp_path), set_as_current=False)
    task_id = new_id()  # what is kept in memory is one for all tests
    app.backend.store_result(task_id, meta, "FAILURE")

    outcome = read_outcome(app, task_id)

    assert outcome.state == "FAILURE"


ELSEWHERE = """
import asyncio
from celery import chain, group
from taskapp.celery import app
from tests.integration.follow_ups import *

async def seen(result, **options):
    try:
        return await result.aget(timeout=20, **options)
    except Exception as error:
        return repr(error)

async def main():
    results = [
        await add.adelay(1, 2), group(add.s(i, i) for i in range(3))(), chain(add.s(1, 1), add.s(1))(),
        await fail.adelay("no"), chain(fail.si("first"), add.si(1, 1))(), await awaits_a_chord_that_fails.adelay(),
    ]
    for result in results:
        print(await seen(result))
    print(repr(await seen(results[3], propagate=False)))
    try:
        async with asyncio.timeout(0.3):
            await app.AsyncResult("nobody").aget()
    except TimeoutError:
        print("over")

asyncio.run(main())
"""


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_results_of_another_store_can_be_awaited(redis_server: RedisServer, tmp_path: Path, store: str) -> None:
    url = STORES[store].format(tmp_path)
    node = start_worker(tmp_path, redis_server.url, TASKAPP_INCLUDE=follow_ups.__name__, TASKAPP_RESULT_URL=url)
    env = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_RESULT_URL=url, TASKAPP_DATA_DIR=str(tmp_path / "data"),
        TASKAPP_INCLUDE=follow_ups.__name__, PYTHONPATH=str(Path.cwd()),
    )  # fmt: skip
    try:
        done = run_python("-c", ELSEWHERE, env=env, timeout=90)
    finally:
        node.close()

    assert done.stdout.splitlines() == [
        "3", "[0, 2, 4]", "3", "ValueError('no')", "ValueError('first')", "ValueError('header')", "ValueError('no')",
        "over",
    ], done.stderr  # fmt: skip
