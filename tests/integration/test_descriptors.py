"""A node that has no free file descriptor: it goes on delivering, and recovers when some are free again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, chord, group

from taskapp.engine.dead_letters import DeadLetters
from taskapp.redis.keys import Keys
from tests.integration import descriptors
from tests.support import Process, RedisServer, eventually, leased_count

START = {"TASKAPP_INCLUDE": descriptors.__name__, "TASKAPP_LEASE_SECONDS": "3", "TASKAPP_CHILD_PROCESSES": "1"}
POOLS = {"default": (), "threads": ("-P", "threads"), "solo": ("-P", "solo"), "prefork": ("-P", "prefork", "-c", "1")}


@pytest.fixture
def task(app: Celery) -> Callable[..., Any]:
    return lambda name, *args: app.signature(f"descriptors.{name}", args, queue="default", immutable=bool(args))


@pytest.fixture
def node(worker: Callable[..., Process], redis_server: RedisServer) -> Callable[..., Process]:
    def start(*options: str, **env: str) -> Process:
        node = worker(*options, **{**START, **env})
        eventually(lambda: any(client["cmd"] == "brpop" for client in redis_server.client.client_list()))
        return node

    return start


@pytest.mark.parametrize("pool", ["default", "threads", "solo"])
def test_a_node_without_a_free_descriptor_runs_tasks_and_stores_all_that_follows(
    node: Callable[..., Process], task: Callable[..., Any], redis_server: RedisServer, letters: DeadLetters, pool: str
) -> None:
    started = node(*POOLS[pool])
    task("take").delay().get(timeout=20)

    # Elsewhere, a coroutine needs an event loop of its own.
    names = ("double", "double_async") if pool == "default" else ("double",)
    doubled = group(task(name, number) for name in names for number in range(5)).delay()
    added = chord([task("double", 2), task("double", 3)], task("total")).delay()
    failed, again = task("fail").delay(), task("fail_once").delay()

    assert doubled.get(timeout=20) == [0, 2, 4, 6, 8] * len(names)
    assert isinstance(failed.get(timeout=20, propagate=False), ValueError)
    assert again.get(timeout=20) == "again"
    task("release").delay().get(timeout=20)
    assert added.get(timeout=20) == 10
    assert started.returncode is None
    assert [(letter.id, letter.reason) for letter in letters.find()] == [(failed.id, "failed")]
    eventually(lambda: leased_count(redis_server) == 0)


def test_what_needs_a_descriptor_is_done_when_one_is_free_again(
    node: Callable[..., Process], app: Celery, task: Callable[..., Any], redis_server: RedisServer
) -> None:
    started = node("-c", "3")
    task("take").delay().get(timeout=20)
    noted, in_child = task("note").delay(), task("double_in_child", 4).delay()
    eventually(lambda: "could not start a child process" in started.output())
    eventually(lambda: "away: Error 24" in started.output())

    task("release").delay().get(timeout=20)

    assert in_child.get(timeout=20) == 8
    noted.get(timeout=20)
    assert eventually(lambda: app.open_notes().lines(noted.id))[0].text.endswith("no descriptor was needed")
    eventually(lambda: leased_count(redis_server) == 0)


def test_a_node_that_cannot_connect_again_loses_nothing_and_recovers(
    node: Callable[..., Process], task: Callable[..., Any], redis_server: RedisServer, letters: DeadLetters
) -> None:
    started = node("-c", "3")
    waits = task("wait", 2.0).delay()
    task("take").delay().get(timeout=20)
    task("take_again", 5.0).delay()
    eventually(lambda: "descriptors.take_again" in started.output().partition(" ready.")[2])

    redis_server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    others = [task("double", number).delay() for number in range(20)]

    assert [result.get(timeout=30) for result in others] == [number * 2 for number in range(20)]
    waits.get(timeout=30)
    assert started.returncode is None
    assert letters.find() == []
    eventually(lambda: leased_count(redis_server) == 0)


@pytest.mark.parametrize("pool", POOLS)
def test_a_node_without_a_free_descriptor_gives_back_what_it_holds_when_it_ends(
    node: Callable[..., Process], task: Callable[..., Any], redis_server: RedisServer, pool: str
) -> None:
    started = node(*POOLS[pool], TASKAPP_LEASE_SECONDS="15", TASKAPP_DRAIN_SECONDS="0.5")
    task("take_and_wait", 60.0).delay()
    eventually(lambda: leased_count(redis_server) == 1 and "received" in started.output())

    started.terminate()

    assert (redis_server.client.llen(Keys().ready("default")), leased_count(redis_server)) == (1, 0)
