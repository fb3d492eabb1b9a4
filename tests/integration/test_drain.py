"""The end of a node: in time, whatever runs and whatever is broken, and nothing lost by it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from celery import Task

from taskapp.redis.keys import Keys
from taskapp.worker.pool.prefork import PreforkPool
from tests.faults.breaks import Breaks
from tests.integration import shop
from tests.support import Process, RedisServer, eventually, leased_count, start_worker

pytestmark = pytest.mark.usefixtures("app")
SHOP = "tests.integration.shop"
HOLDS = {"default": shop.hold_softly, "threads of default": shop.hold, "children of default": shop.hold_child}
SLOW_POOLS = ["threads of default", "children of default", "prefork", "threads", "solo", "gevent"]
CHILDREN, NO_CHILDREN = ["children of default", "prefork"], ["default", "threads", "solo"]
POOLS = ["default", *(pytest.param(pool, marks=pytest.mark.slow) for pool in SLOW_POOLS)]
IDLE_SECONDS = 3.0
OTHER_POOLS = [pytest.param(pool, marks=pytest.mark.slow) for pool in ("prefork", "threads", "gevent")]
GIVING_BACK_SECONDS = 3.0
BUSY_MACHINE_SECONDS = 2.0
StartWorker = Callable[..., Process]


def on(pool: str) -> tuple[str, ...]:
    return () if pool in HOLDS else ("-P", pool)


def holds(pool: str) -> Task:
    return HOLDS.get(pool, shop.hold)


def seconds_to_end(node: Process, *signals: signal.Signals) -> float:
    began_at = time.monotonic()
    for number in signals:
        os.kill(node.pid, number)
        time.sleep(0.3 if len(signals) > 1 else 0)  # two at once may be seen as one
    node.wait(60)
    return time.monotonic() - began_at


def counts(server: RedisServer) -> tuple[int, int]:
    """How many messages are ready and how many are leased."""
    return server.client.llen(Keys().ready("default")), leased_count(server)


def test_ctrl_c_drains_like_sigterm_and_ends_with_zero(worker: StartWorker) -> None:
    node = worker(TASKAPP_INCLUDE=SHOP)
    assert shop.greet.delay("you").get(timeout=20) == "hello you"

    assert seconds_to_end(node, signal.SIGINT) < IDLE_SECONDS
    assert node.returncode == 0


@pytest.mark.parametrize("pool", POOLS)
def test_an_idle_worker_is_gone_in_three_seconds(worker: StartWorker, pool: str) -> None:
    node = worker(*on(pool), TASKAPP_INCLUDE=SHOP)
    assert shop.greet.delay("you").get(timeout=20) == "hello you"

    assert seconds_to_end(node, signal.SIGTERM) < IDLE_SECONDS
    assert node.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["default", "prefork"])
@pytest.mark.parametrize("fault", ["stop", "freeze"])
def test_an_idle_worker_is_gone_in_three_seconds_without_its_redis(
    worker: StartWorker, redis_server: RedisServer, pool: str, fault: str
) -> None:
    node = worker(*on(pool))
    getattr(redis_server, fault)()

    assert seconds_to_end(node, signal.SIGTERM) < IDLE_SECONDS
    assert node.returncode == 0


@pytest.mark.slow
def test_a_worker_that_has_never_reached_its_redis_is_gone_in_three_seconds(
    worker: StartWorker, redis_server: RedisServer
) -> None:
    redis_server.stop()
    node = worker(wait=False)
    eventually(lambda: "the broker is away" in node.output())

    assert seconds_to_end(node, signal.SIGTERM) < IDLE_SECONDS
    assert node.returncode == 0


@pytest.mark.parametrize("pool", POOLS)
def test_what_runs_may_end_before_the_deadline(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path, pool: str
) -> None:
    gate = tmp_path / "gate"
    node = worker(*on(pool), TASKAPP_INCLUDE=SHOP)
    held = holds(pool).delay(str(gate))
    # Leased is not begun: on SIGTERM it would go back.
    eventually(lambda: shop.is_held(gate))
    os.kill(node.pid, signal.SIGTERM)
    eventually(lambda: "shutdown" in node.output())
    gate.touch()

    assert node.wait(IDLE_SECONDS + BUSY_MACHINE_SECONDS) == 0
    assert held.get(timeout=5) is None
    assert counts(redis_server) == (0, 0)


@pytest.mark.parametrize("pool", ["default", "threads of default", "children of default", *OTHER_POOLS])
@pytest.mark.parametrize("how", ["it drains", "it has left its queues"])
def test_an_end_is_told_at_once_by_a_node_that_takes_no_more(
    worker: StartWorker, app: Any, tmp_path: Path, pool: str, how: str
) -> None:
    """Else who waits for it waits for the longest task of the node, which repeats it all when it is killed."""
    first, last = tmp_path / "first", tmp_path / "last"
    node = worker(*on(pool), "-c", "2", TASKAPP_INCLUDE=SHOP)
    ends_first, ends_last = holds(pool).delay(str(first)), holds(pool).delay(str(last))
    eventually(lambda: shop.is_held(first) and shop.is_held(last))
    if how == "it drains":
        os.kill(node.pid, signal.SIGTERM)
        eventually(lambda: "shutdown" in node.output())
    else:
        for queue in app.conf.task_queues:
            command = {"arguments": {"queue": queue.name}, "reply": True, "timeout": 20, "limit": 1}
            assert app.control.broadcast("cancel_consumer", **command)
    first.touch()

    assert ends_first.get(timeout=15) is None
    assert node.returncode is None
    assert not ends_last.ready()
    last.touch()
    assert ends_last.get(timeout=15) is None


def test_an_end_is_told_by_a_node_that_drains_over_a_connection_that_the_network_has_forgotten(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    way = Breaks(redis_server.port, 1)
    node = start_worker(
        tmp_path, redis_server.url.replace(f":{redis_server.port}/", f":{way.port}/"), TASKAPP_INCLUDE=SHOP
    )
    try:
        ends_first, ends_last = shop.hold_softly.delay(str(first)), shop.hold_softly.delay(str(last))
        eventually(lambda: shop.is_held(first) and shop.is_held(last))
        os.kill(node.pid, signal.SIGTERM)
        eventually(lambda: "shutdown" in node.output())
        way.do("forget_all")
        eventually(lambda: all(end.is_forgotten for end in list(way.ends)))
        first.touch()

        assert ends_first.get(timeout=20) is None
        assert node.returncode is None
        last.touch()
        assert ends_last.get(timeout=20) is None
    finally:
        node.close()
        way.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("pool", [*CHILDREN, *(pytest.param(pool, marks=pytest.mark.slow) for pool in NO_CHILDREN)])
def test_what_runs_may_end_before_the_deadline_when_the_whole_group_is_told(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path, pool: str, number: signal.Signals
) -> None:
    """By systemd, by default; by a terminal; by a shell that signals its whole group."""
    gate = tmp_path / "gate"
    node = worker(*on(pool), TASKAPP_INCLUDE=SHOP)
    held = holds(pool).delay(str(gate))
    eventually(lambda: shop.is_held(gate))
    os.killpg(node.pid, number)
    eventually(lambda: "shutdown" in node.output())
    gate.touch()

    assert node.wait(IDLE_SECONDS + BUSY_MACHINE_SECONDS) == 0
    assert held.get(timeout=5) is None
    assert counts(redis_server) == (0, 0)


@pytest.mark.parametrize("pool", POOLS)
def test_what_has_not_ended_at_the_deadline_goes_to_another_node_at_once(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path, pool: str
) -> None:
    gate = tmp_path / "gate"
    node = worker(*on(pool), TASKAPP_INCLUDE=SHOP, TASKAPP_DRAIN_SECONDS="2")
    children = psutil.Process(node.pid).children()
    held = holds(pool).delay(str(gate))
    eventually(lambda: shop.is_held(gate))

    took = seconds_to_end(node, signal.SIGTERM)

    assert 2 <= took < 2 + GIVING_BACK_SECONDS
    assert node.returncode == 0
    assert counts(redis_server) == (1, 0)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    gate.touch()
    worker(*on("default" if pool in HOLDS else "solo"), name="w2", TASKAPP_INCLUDE=SHOP)
    assert held.get(timeout=20) is None


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_is_final(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path, pool: str, second: signal.Signals
) -> None:
    node = worker(*on(pool), TASKAPP_INCLUDE=SHOP)
    holds(pool).delay(str(tmp_path / "gate"))
    eventually(lambda: shop.is_held(tmp_path / "gate"))

    assert seconds_to_end(node, signal.SIGTERM, second) < BUSY_MACHINE_SECONDS
    assert node.returncode == 0
    assert counts(redis_server) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stop", "freeze"])
def test_without_redis_a_drain_ends_at_its_deadline_all_the_same(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path, fault: str
) -> None:
    node = worker("-P", "threads", TASKAPP_INCLUDE=SHOP, TASKAPP_DRAIN_SECONDS="2", TASKAPP_LEASE_SECONDS="3")
    shop.hold.delay(str(tmp_path / "gate"))
    eventually(lambda: shop.is_held(tmp_path / "gate"))
    getattr(redis_server, fault)()

    assert seconds_to_end(node, signal.SIGTERM) < 2 + GIVING_BACK_SECONDS + 1
    assert node.returncode == 0


def test_a_worker_that_drains_still_answers(worker: StartWorker, tmp_path: Path, app: object) -> None:
    gate = tmp_path / "gate"
    node = worker("-P", "prefork", TASKAPP_INCLUDE=SHOP)

    def running() -> list[str]:
        answers = app.control.inspect(timeout=2).active() or {}  # type: ignore[attr-defined]
        return [task["name"] for tasks in answers.values() for task in tasks]

    shop.hold.delay(str(gate))
    # A node may hold a message that its child has not begun; on SIGTERM that would go back.
    eventually(lambda: running() == [shop.hold.name])
    os.kill(node.pid, signal.SIGTERM)
    eventually(lambda: "shutdown" in node.output())

    still = running()
    gate.touch()
    assert still == [shop.hold.name]


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["default", "prefork"])
def test_nodes_that_are_replaced_under_load_lose_nothing_and_repeat_nothing(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path, pool: str
) -> None:
    ran, took = tmp_path / "ran", []
    node = worker(*on(pool), TASKAPP_INCLUDE=SHOP, name="n0")
    sent = 0
    for life in range(1, 5):
        shop.note.submit_many((str(number), str(ran)) for number in range(sent, sent + 1_000))
        sent += 1_000
        before = len(ran.read_text().split()) if ran.exists() else 0
        eventually(lambda before=before: ran.exists() and len(ran.read_text().split()) > before)
        after = worker(*on(pool), TASKAPP_INCLUDE=SHOP, name=f"n{life}")
        took.append(seconds_to_end(node, signal.SIGTERM))
        assert node.returncode == 0, node.output()[-1_000:]
        node = after
    eventually(lambda: counts(redis_server) == (0, 0), within_seconds=40)

    assert max(took) < IDLE_SECONDS
    assert Counter(ran.read_text().split()) == Counter(map(str, range(sent)))


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["default", "prefork", "solo"])
def test_a_node_ends_after_its_number_of_tasks_and_loses_none(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path, pool: str
) -> None:
    ran = tmp_path / "ran"
    shop.note.submit_many((str(number), str(ran)) for number in range(1_000))
    lives = []
    while any(counts(redis_server)):
        node = worker(*on(pool), TASKAPP_INCLUDE=SHOP, TASKAPP_MAX_TASKS_PER_NODE="300", name=f"n{len(lives)}")
        eventually(lambda node=node: node.returncode is not None or counts(redis_server) == (0, 0), within_seconds=30)
        lives.append(node.terminate())

    assert lives[0] == 75
    assert set(lives) <= {75, 0}
    assert Counter(ran.read_text().split()) == Counter(map(str, range(1_000)))


def test_a_node_that_takes_too_much_memory_ends_and_says_why(worker: StartWorker) -> None:
    node = worker("-P", "threads", wait=False, TASKAPP_MAX_MEMORY_MB="20")  # which may end before it is seen

    assert node.wait(20) == 75
    assert "MiB of memory; its limit is 20 MiB: draining, then exiting with code 75" in node.output()


@pytest.mark.slow
def test_a_node_whose_threads_hang_past_their_limits_ends_to_be_started_anew(
    worker: StartWorker, redis_server: RedisServer, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    node = worker(TASKAPP_INCLUDE=SHOP)
    for _ in range(5):
        shop.hang.delay(str(tmp_path / "pipe"))

    assert node.wait(30) == 75
    assert "5 threads of this node hang in tasks past their time limit" in node.output()
    assert counts(redis_server) == (0, 0)


def test_children_are_dead_when_killing_them_returns_and_their_status_is_left_to_celery() -> None:
    children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(3)]
    pool: Any = object.__new__(PreforkPool)
    pool._pool = SimpleNamespace(_pool=children)

    pool.kill_children()

    assert [child.poll() for child in children] == [-signal.SIGKILL] * 3
    pool.kill_children()
