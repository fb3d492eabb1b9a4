"""Celery's worker for tests, on a thread of the process that tests: it leaves that process alone."""

from __future__ import annotations

import pytest

from tests.support import RedisServer, clean_environment, run_python

PROGRAM = """
import sys, time
import celery.contrib.testing.tasks
from celery.contrib.testing.worker import start_worker
from taskapp import Celery
from taskapp.worker.drain import CLOSING_SECONDS, IDLE_SECONDS

app = Celery("proj", broker=sys.argv[1], backend=sys.argv[2])

@app.task
def add(x, y):
    return x + y

for _ in range(2):
    with start_worker(app, shutdown_timeout=60, ping_task_timeout=60):
        print(add.delay(1, 2).get(timeout=60), flush=True)
    time.sleep(IDLE_SECONDS + CLOSING_SECONDS + 1)  # a worker program would have ended its process by now
print("the end")
"""


@pytest.mark.parametrize("over_redis", [False, True], ids=["in memory", "redis"])
def test_a_process_outlives_the_worker_that_a_test_has_started_in_it(
    redis_server: RedisServer, over_redis: bool
) -> None:
    urls = [redis_server.url] * 2 if over_redis else ["memory://", "cache+memory://"]
    done = run_python("-c", PROGRAM, *urls, env=clean_environment(), timeout=110)

    assert (done.returncode, done.stdout.split("\n")[:3]) == (0, ["3", "3", "the end"]), done.stderr
