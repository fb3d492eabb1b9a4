"""Tasks whose classes derive from plain ``celery.Task``, or bring a request or a strategy of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from tests.integration import foreign_bases
from tests.integration.foreign_bases import RUN_ALIKE
from tests.support import Process, RedisServer, eventually, leased_count, start_worker

POOLS = {"own": (), "prefork": ("-P", "prefork"), "threads": ("-P", "threads"), "solo": ("-P", "solo"),
         "gevent": ("-P", "gevent")}  # fmt: skip
SLEEPERS = ["foreign.base.def", "foreign.base.async", "foreign.base.child", "foreign.registered.def",
            "foreign.request_by_name.async", "foreign.everything.async"]  # fmt: skip


@pytest.fixture(scope="module")
def redis_of_all(session_server: RedisServer) -> Iterator[RedisServer]:
    yield session_server
    session_server.client.flushall()


@pytest.fixture(scope="module", params=POOLS)
def node(
    request: pytest.FixtureRequest, redis_of_all: RedisServer, _web_process: Celery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Process]:  # fmt: skip
    """A node of one pool."""
    node = start_worker(
        tmp_path_factory.mktemp(request.param), redis_of_all.url, *POOLS[request.param], name=request.param,
        TASKAPP_INCLUDE=foreign_bases.__name__, TASKAPP_CHILD_PROCESSES="1",
    )  # fmt: skip
    _web_process.set_current()
    yield node
    node.close()


@pytest.fixture
def app(node: Process, _web_process: Celery) -> Celery:
    _web_process.set_current()
    return _web_process


def hooks(server: RedisServer, task_id: str) -> list[str]:
    return server.client.lrange(f"hooks:{task_id}", 0, -1)


@pytest.mark.quick("*-foreign.base.*", "own-*.def", "own-*.async", "prefork-*.def")
@pytest.mark.parametrize("name", RUN_ALIKE)
def test_it_runs_retries_fails_and_is_followed(app: Celery, name: str, redis_of_all: RedisServer) -> None:
    task: Any = app.tasks[name]
    plain, retried, failing = task.delay("return", 1), task.delay("retry", 2), task.delay("fail", "its own")
    chained = (task.si("return", 3) | task.si("return", 4)).delay()
    ends = chord([task.si("return", n) for n in range(3)], task.si("return", "body")).delay()

    assert plain.get(timeout=20)[:3] == [1, plain.id, 0]
    assert retried.get(timeout=20)[:3] == [2, retried.id, 2]
    with pytest.raises(ValueError, match="its own"):
        failing.get(timeout=20)
    assert chained.get(timeout=20)[0] == 4
    assert ends.get(timeout=20)[0] == "body"
    eventually(lambda: not leased_count(redis_of_all))
    if ".base." in name:
        assert plain.get()[3] == "open"
    if ".everything." in name:
        eventually(lambda: hooks(redis_of_all, plain.id) == ["on_success", "after_return SUCCESS"])
    if ".request" in name:
        eventually(lambda: hooks(redis_of_all, failing.id) == ["request failed"])


@pytest.mark.quick("*-own")
@pytest.mark.parametrize("node", ["own", "prefork"], indirect=True)
@pytest.mark.parametrize("name", SLEEPERS)
def test_its_limits_hold_and_it_can_be_revoked(app: Celery, name: str, redis_of_all: RedisServer) -> None:
    task: Any = app.tasks[name]

    with pytest.raises(SoftTimeLimitExceeded):
        task.apply_async(("sleep",), soft_time_limit=0.3).get(timeout=20)
    with pytest.raises(TimeLimitExceeded):
        task.apply_async(("sleep",), time_limit=0.3).get(timeout=20)
    running = task.delay("sleep")
    eventually(lambda: running.state == "STARTED")
    running.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=20)
    eventually(lambda: not leased_count(redis_of_all))


def test_what_a_strategy_gathers_is_run_in_one_go(app: Celery, node: Process, redis_of_all: RedisServer) -> None:
    gather: Any = app.tasks["foreign_batches.gather"]
    results = [gather.delay(n) for n in range(8)]

    sizes = [result.get(timeout=30) for result in results]

    assert [value for value, _ in sizes] == list(range(8))
    assert max(size for _, size in sizes) > 1 or " 1 (solo" in node.output()
    eventually(lambda: not leased_count(redis_of_all))


@pytest.mark.parametrize("node", ["own"], indirect=True)
def test_what_a_strategy_keeps_holds_up_no_other_type(app: Celery) -> None:
    gather, other = (app.tasks[name] for name in ("foreign_batches.gather", "foreign.base.def"))
    kept = [gather.delay(n) for n in range(30)]

    assert other.delay("return", 1).get(timeout=20)[0] == 1
    assert [result.get(timeout=20)[0] for result in kept] == list(range(30))


BAD_TYPES = {
    "an `async def`": """
class Keeping(Task):
    def Strategy(self, task, app, consumer):
        return print
@shared_task(base=Keeping)
async def go(): ...
""",
    "`cpu_bound=True`": """
class Keeping(Task):
    def Strategy(self, task, app, consumer):
        return print
@shared_task(base=Keeping, cpu_bound=True)
def go(): ...
""",
    "Task.Request cannot be": """
@shared_task(Request="os:path")
def go(): ...
""",
}


@pytest.mark.parametrize("problem", BAD_TYPES)
def test_what_cannot_run_is_refused_at_the_start(problem: str, redis_server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"from celery import Task, shared_task\n{BAD_TYPES[problem]}")

    node = start_worker(tmp_path, redis_server.url, wait=False, TASKAPP_INCLUDE="bad")

    assert node.wait() == 78
    last = [line for line in node.output().splitlines() if line.strip()][-1]
    assert last.startswith("Error: ")
    assert problem in last


@pytest.mark.parametrize("option", ["-Q", "-X"])
def test_a_queue_nobody_knows_is_refused_in_one_line(option: str, redis_server: RedisServer, tmp_path: Path) -> None:
    node = start_worker(tmp_path, redis_server.url, option, "low,defualt", wait=False)

    assert node.wait() == 2
    assert "Traceback" not in node.output()
    last = [line for line in node.output().splitlines() if line.strip()][-1]
    assert last.startswith("Error: no queue named 'defualt'; did you mean 'default'?")
