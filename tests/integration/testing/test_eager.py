"""Without a broker URL and without a server: calling a task, ``apply()``, ``task_always_eager``."""

from __future__ import annotations

import pytest

from tests.support import clean_environment, run_python

APP = """
import asyncio
from celery import chain, chord, group
from taskapp import Celery

app = Celery("proj")

@app.task
def add(x, y):
    return x + y

@app.task
def total(values):
    return sum(values)

@app.task
async def async_add(x, y):
    return x + y
"""


@pytest.mark.parametrize(
    "code",
    [
        "assert add(2, 3) == 5",
        "assert asyncio.run(async_add(2, 3)) == 5",
        "assert add.apply((2, 3)).get() == 5",
        "assert async_add.apply((2, 3)).get() == 5",
        "assert chain(add.s(1, 2), add.s(3)).apply().get() == 6",
        "assert group(add.s(1, 2), add.s(3, 4)).apply().get() == [3, 7]",
        "assert chord([add.s(1, 2), add.s(3, 4)], total.s()).apply().get() == 10",
        "app.conf.task_always_eager = True; assert add.delay(2, 3).get() == 5",
        "app.conf.task_always_eager = True; assert chord([add.s(1, 2), add.s(3, 4)], total.s())().get() == 10",
        "app.conf.task_always_eager = True; assert chain(add.s(1, 2), async_add.s(3))().get() == 6",
        "app.conf.update(task_always_eager=True, task_store_eager_result=False); assert add.delay(2, 3).get() == 5",
        "app.conf.task_always_eager = True; assert asyncio.run(add.adelay(2, 3)).get() == 5",
        "app.conf.task_always_eager = True; assert add.submit_many([(1, 2)])[0].get() == 3",
    ],
)
def test_no_broker_is_needed(code: str, tmp_path: object) -> None:
    environment = clean_environment() | {"TASKAPP_EMBEDDED": "never", "TASKAPP_DATA_DIR": str(tmp_path)}

    done = run_python("-c", APP + code, env=environment)

    assert done.returncode == 0, done.stderr
