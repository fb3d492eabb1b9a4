"""Celery's event loop with an asyncio loop inside."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from taskapp.worker.pool.hub import LoopHub
from tests.support import clean_environment

TURNS_MOST = 20


def test_coroutines_run_while_the_hub_watches_nothing() -> None:
    """As while the broker is away, whose connections are all there is to watch."""
    hub = LoopHub()
    turns = hub.create_loop()
    next(turns)  # registers what wakes it up

    async def wait() -> str:
        for _ in range(3):
            await asyncio.sleep(0.01)
        return "done"

    task = hub.loop_of_tasks.create_task(wait())

    for _ in range(TURNS_MOST):
        if task.done():
            break
        next(turns)

    assert not hub.readers.keys()
    assert task.done()
    assert task.result() == "done"
    hub.close()
    hub.loop_of_tasks.close()


FULL = """
import os, resource, sys, threading
os.environ["TASKAPP_EVENT_LOOP"] = sys.argv[1]
from taskapp.worker.pool.hub import LoopHub
hub = LoopHub()
turns = hub.create_loop()
for _ in range(3):
    next(turns)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
taken = []
def take():
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
hub.loop_of_tasks.call_soon(take)
for _ in range(5):
    hub.call_soon(lambda: None)
    next(turns)
# As a thread does between two turns; the numbers of those in reserve are too high, as if it took these as well.
take()
resource.setrlimit(resource.RLIMIT_NOFILE, (4, 128))
def release():
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    while taken:
        os.close(taken.pop())
threading.Timer(0.2, release).start()
for _ in range(5):
    hub.call_soon(lambda: None)
    next(turns)
print("alive", len(taken))
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_loop_runs_on_although_no_file_descriptor_is_free(loop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, loop], env=clean_environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout.split()[:1]) == (0, ["alive"]), done.stderr
