"""A node that ends by the doing of its own tasks: what ran then counts as crashed, here with a limit of one crash."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from celery import Celery

from taskapp.engine.dead_letters import DeadLetters
from taskapp.errors import CrashedTooOften
from taskapp.redis.keys import Keys
from tests.integration import ending, slow_turns
from tests.support import Process, RedisServer, eventually, leased_count

START = {
    "TASKAPP_INCLUDE": ending.__name__, "TASKAPP_DRAIN_SECONDS": "0.5", "TASKAPP_CRASH_LIMIT": "1",
    "TASKAPP_MAX_MEMORY_MB": "300", "TASKAPP_CHILD_PROCESSES": "1",
}  # fmt: skip


def ready(server: RedisServer) -> int:
    return int(server.client.llen(Keys().ready("default")))


@pytest.mark.quick("*-", "*-P prefork", "ends-SIGTERM--P solo")
@pytest.mark.parametrize(
    ("task", "args", "options"),
    [
        ("ends", ("SIGTERM",), ()),
        ("ends", ("SIGINT",), ()),
        ("ends", ("SIGQUIT",), ()),
        ("ends", ("child",), ()),
        ("ends", ("memory",), ()),
        ("ends.async", ("SIGTERM",), ()),
        ("ends.parent", (), ()),
        ("ends.parent", (), ("-P", "prefork")),
        ("ends", ("SIGTERM",), ("-P", "threads")),
        ("ends", ("SIGTERM",), ("-P", "solo")),
        ("ends", ("SIGTERM",), ("-P", "gevent")),
        ("ends", ("SIGQUIT",), ("-P", "solo")),
        ("ends", ("SIGQUIT",), ("-P", "threads")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_task_that_ends_its_node_alone_is_buried_and_told(
    worker: Callable[..., Process], app: Celery, letters: DeadLetters, task: str, args: tuple[str], options: tuple[str]
) -> None:
    node = worker(*options, **START)
    result = app.signature(task, args, queue="default").apply_async()

    node.wait(20)

    assert [(letter.id, letter.reason, letter.crashes) for letter in letters.find()] == [(result.id, "crashed", 1)]
    # By the node that ended: there is no other.
    assert isinstance(result.get(timeout=20, propagate=False), CrashedTooOften)


@pytest.mark.parametrize("way", ["SIGTERM", "SIGQUIT"])
@pytest.mark.parametrize("options", [(), ("-P", "prefork")], ids=" ".join)
def test_a_child_that_ends_its_node_before_that_has_heard_of_its_task_is_buried(
    worker: Callable[..., Process], app: Celery, letters: DeadLetters, options: tuple[str], way: str
) -> None:
    """The signal is quicker than what children say through their pipes."""
    node = worker(*options, **{**START, "TASKAPP_INCLUDE": f"{ending.__name__},{slow_turns.__name__}"})
    result = app.signature("ends.parent", (way,), queue="default").apply_async()

    node.wait(20)

    assert [(letter.id, letter.reason, letter.crashes) for letter in letters.find()] == [(result.id, "crashed", 1)]


def test_a_sigterm_from_outside_never_counts(
    worker: Callable[..., Process], app: Celery, letters: DeadLetters, redis_server: RedisServer
) -> None:
    node = worker(**START)
    result = app.signature("long", queue="default").apply_async()
    eventually(lambda: result.state == "STARTED")

    node.terminate()

    assert letters.find() == []
    assert (ready(redis_server), leased_count(redis_server)) == (1, 0)


@pytest.mark.quick("default", "prefork")
@pytest.mark.parametrize("pool", ["default", "prefork", "threads", "solo", "gevent"])
def test_a_sigquit_from_outside_gives_back_what_runs(
    worker: Callable[..., Process], app: Celery, letters: DeadLetters, redis_server: RedisServer, pool: str
) -> None:
    """At once: there would be a minute for it."""
    options = () if pool == "default" else ("-P", pool)
    node = worker(*options, **{**START, "TASKAPP_DRAIN_SECONDS": "60"})
    result = app.signature("long", queue="default").apply_async()
    eventually(lambda: result.state == "STARTED")

    os.kill(node.pid, signal.SIGQUIT)

    assert node.wait(20) == 0
    assert letters.find() == []
    assert result.state == "STARTED"
    assert (ready(redis_server), leased_count(redis_server)) == (1, 0)


def test_of_several_nobody_is_buried(
    worker: Callable[..., Process], app: Celery, letters: DeadLetters, redis_server: RedisServer
) -> None:
    """Who it was cannot be said: they run alone later, as after a crash."""
    node = worker("-c", "4", **{**START, "TASKAPP_CRASH_LIMIT": "3"})
    beside = app.signature("long", queue="default").apply_async()
    eventually(lambda: beside.state == "STARTED")
    app.signature("ends", ("SIGTERM",), queue="default").apply_async()

    node.wait(20)

    assert letters.find() == []
    assert (ready(redis_server), leased_count(redis_server)) == (2, 0)


def test_a_task_that_ends_before_its_node_has_succeeded(
    worker: Callable[..., Process], app: Celery, letters: DeadLetters, redis_server: RedisServer
) -> None:
    node = worker(**START)
    result = app.signature("ends.soon", queue="default").apply_async()

    assert result.get(timeout=10) == "done"
    assert node.wait(20) == 0
    assert letters.find() == []
    assert (ready(redis_server), leased_count(redis_server)) == (0, 0)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("how", ["loop", "ignore", "default"])
def test_a_stop_signal_right_after_a_coroutine_that_changed_its_handler_is_obeyed(
    worker: Callable[..., Process], app: Celery, how: str, loop: str
) -> None:
    node = worker(TASKAPP_EVENT_LOOP=loop, **START)
    # The node looks at all handlers once a second; here, it has just looked.
    for _ in range(3):
        app.signature("changes.signals", (how,), queue="default").apply_async().get(timeout=20)

    os.kill(node.pid, signal.SIGTERM)

    assert node.wait(20) == 0
    assert "a task had changed the handler of SIGTERM; the node has restored its own" in node.output()


@pytest.mark.parametrize("seconds", [0.0, 2.0])
@pytest.mark.parametrize(
    ("options", "kind"),
    [((), "def"), ((), "async"), (("-P", "threads"), "def"), (("-P", "solo"), "def"), (("-P", "prefork"), "def")],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_task_that_lowers_the_recursion_limit_harms_no_other(
    worker: Callable[..., Process], app: Celery, letters: DeadLetters, options: tuple[str], kind: str, seconds: float
) -> None:
    node = worker("-c", "2", *options, **START)
    count = app.signature("counts", (1,), queue="default")
    app.signature(f"lowers.{kind}", (seconds,), queue="default").apply_async()
    results = [count.apply_async() for _ in range(20)]

    assert [result.get(timeout=20) for result in results] == [1] * 20
    assert {letter.task for letter in letters.find()} <= {f"lowers.{kind}"}
    eventually(lambda: "had lowered the recursion limit to" in node.output())
    assert node.terminate() == 0


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("how", ["removes", "replaces"])
def test_a_node_whose_readers_a_coroutine_has_changed_claims_on(
    worker: Callable[..., Process], app: Celery, redis_server: RedisServer, how: str, loop: str
) -> None:
    node = worker(TASKAPP_EVENT_LOOP=loop, **START)
    for _ in range(2):
        changed = app.signature("changes.readers", (how,), queue="default").apply_async()
        results = [app.signature("counts", (1,), queue="default").apply_async() for _ in range(20)]

        assert [result.get(timeout=10) for result in (changed, *results)] == [None, *[1] * 20]
    eventually(lambda: leased_count(redis_server) == 0)
    is_told = (how, loop) == ("removes", "asyncio")  # uvloop does not say whether there was a reader
    assert ("a task had removed readers of the event loop" in node.output()) == is_told
    assert node.terminate() == 0
