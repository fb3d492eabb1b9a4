"""A coroutine function on pools that have no loop for it, and types that run in child processes of a node."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from tests.integration.semantics.conftest import BODIES, Way
from tests.support import Process, RedisServer, eventually, start_worker

POOLS = ("solo", "prefork", "threads", "gevent")


@pytest.fixture(scope="module", params=POOLS)
def pool(
    request: pytest.FixtureRequest, redis_of_all: RedisServer, _web_process: Celery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Way]:  # fmt: skip
    """Coroutine functions on a worker of a pool that was typed, with a queue of its own."""
    directory = tmp_path_factory.mktemp(request.param)
    worker = start_worker(
        directory, redis_of_all.url, "-P", request.param, "-Q", "critical", name=request.param, TASKAPP_INCLUDE=BODIES
    )
    _web_process.set_current()
    yield Way("async", "critical", worker, redis_of_all, _web_process)
    worker.close()


def test_it_is_run_to_its_end(pool: Way) -> None:
    seen = pool.run("describe", 1)

    assert (seen["args"], seen["current"]) == ([1], "describe.async")
    assert seen["id"] == seen["current_id"]


def test_several_run_beside_each_other(pool: Way) -> None:
    results = [pool.send("describe", number) for number in range(30)]

    assert [result.get(timeout=30)["args"] for result in results] == [[number] for number in range(30)]


def test_it_fails_retries_and_follows_up(pool: Way) -> None:
    assert repr(pool.failure(pool.send("failing", "no such order"))) == "ValueError('no such order')"
    assert pool.run("automatic", "retried", 1) == 1
    assert (pool.s("double", 2) | pool.s("double")).apply_async().get(timeout=20) == 8


def test_a_client_bound_to_a_loop_serves_more_than_one_task(pool: Way) -> None:
    key = f"counted-{pool.worker.pid}"
    seen = [pool.run("counter", key)[0] for _ in range(6)]

    assert seen == [1, 2, 3, 4, 5, 6]


# --- child processes of a node --------------------------------------------------------------------------


@pytest.fixture(params=["def", "async"])
def computing(
    request: pytest.FixtureRequest, workers: dict[str, Process], app: Celery, redis_of_all: RedisServer
) -> Way:
    """``cpu_bound=True`` on the worker's own pool."""
    return Way(request.param, "default", workers["own"], redis_of_all, app)


def test_what_computes_runs_in_a_child(computing: Way) -> None:
    result = computing.send("compute")
    pid, task_id, current_id = result.get(timeout=20)

    assert pid in {child.pid for child in psutil.Process(computing.worker.pid).children()}
    assert task_id == current_id == result.id


def test_a_hard_limit_kills_the_child_and_no_more(computing: Way) -> None:
    result = computing.send("compute", "hang", time_limit=0.5)

    assert type(computing.failure(result)) is TimeLimitExceeded
    ((pid,),) = computing.seen(result.id)
    assert computing.run("compute")[0] != pid
    assert computing.worker.returncode is None


def test_a_soft_limit_is_raised_in_the_child(computing: Way) -> None:
    result = computing.send("compute", "wait", soft_time_limit=0.5)

    assert type(computing.failure(result)) is SoftTimeLimitExceeded


def test_a_child_that_exits_takes_nothing_with_it(computing: Way) -> None:
    result = computing.send("compute", "leave")

    assert type(computing.failure(result)).__name__ in ("WorkerLostError", "CrashedTooOften")
    assert computing.run("echo", 1) == [[1], {}]
    assert computing.run("compute")[1]


def test_an_error_comes_back_from_the_child(computing: Way) -> None:
    result = computing.send("compute", "fail")

    assert repr(computing.failure(result)) == "ValueError('of the child')"
    assert "in compute" in result.traceback


def test_a_task_in_a_child_can_be_terminated(computing: Way) -> None:
    result = computing.send("compute", "wait")
    eventually(lambda: result.state == "STARTED")
    result.revoke(terminate=True)

    assert type(computing.failure(result)).__name__ == "TaskRevokedError"
    assert computing.run("compute")[1]
