"""Submitting and waiting in coroutines, as an async web app does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from celery import Celery, chain, group, states
from celery.exceptions import TimeoutError as ResultTimeoutError

from taskapp.errors import BrokerUnavailable, InvalidPayload, SubmitInterrupted, SubmitOutcomeUnknown
from taskapp.redis.keys import Keys
from tests.integration import shop
from tests.support import Process, RedisServer, clean_environment, eventually, examples

pytestmark = pytest.mark.usefixtures("app")
SHOP = "tests.integration.shop"
RETRIED = {"exc_type": "ValueError", "exc_message": ["once more"], "exc_module": "builtins"}
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param


def store(server: RedisServer, values: dict[str, Any], state: str = "SUCCESS") -> None:
    """Store results as a worker would."""
    with server.client.pipeline() as pipe:
        for task_id, value in values.items():
            meta = json.dumps({"status": state, "result": value, "traceback": None, "children": [], "task_id": task_id})
            pipe.set(f"celery-task-meta-{task_id}", meta).publish(f"celery-task-meta-{task_id}", meta)
        pipe.execute()


def subscribed(server: RedisServer) -> int:
    return sum(int(client["sub"]) for client in server.client.client_list())


def starved_seconds() -> float:
    """Return for how long this thread was ready to run and other threads had the processors, where Linux tells."""
    try:
        _, waited_ns, _ = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()
    except OSError:
        return 0.0
    return int(waited_ns) / 1e9


@asynccontextmanager
async def never_blocked(most_seconds: float = 1.0) -> AsyncIterator[None]:
    """Fail if the event loop stood still for longer than ``most_seconds``, a busy machine's doing apart."""
    gaps = [0.0]

    async def tick() -> None:
        while True:
            before, starved = time.monotonic(), starved_seconds()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before - (starved_seconds() - starved))

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()
    assert max(gaps) < most_seconds


async def until(condition: Callable[[], Any], within_seconds: float = 20) -> None:
    await asyncio.to_thread(eventually, condition, within_seconds)


# --- on a real worker -------------------------------------------------------------------------------


def test_a_web_app_submits_and_waits(worker: Callable[..., Process], run: Run) -> None:
    worker("-P", "threads", "-c", "4", TASKAPP_INCLUDE=SHOP)

    async def main() -> None:
        assert await (await shop.greet.adelay("Ada")).aget(timeout=20) == "hello Ada"
        results = await asyncio.gather(*(shop.greet.adelay(str(n)) for n in range(200)))
        assert [await result.aget(timeout=20) for result in results] == [f"hello {n}" for n in range(200)]
        many = await shop.greet.asubmit_many([(str(n),) for n in range(450)], priority=3)
        assert await asyncio.gather(*(result.aget(timeout=30) for result in many)) == [f"hello {n}" for n in range(450)]
        with pytest.raises(ValueError, match="cannot charge -1"):
            await (await shop.charge.adelay(-1)).aget(timeout=20)
        error = await (await shop.charge.adelay(-1)).aget(timeout=20, propagate=False)
        assert isinstance(error, ValueError)

    run(main())


def test_results_of_canvas_are_awaited(worker: Callable[..., Process], run: Run, tmp_path: Path) -> None:
    from taskapp.tasks import add

    worker("-P", "threads", "-c", "4", TASKAPP_INCLUDE=SHOP)

    async def main() -> None:
        assert await chain(add.s(1, 1), add.s(2)).apply_async().aget(timeout=20) == 4
        assert await group(add.s(n, n) for n in range(20)).apply_async().aget(timeout=20) == [2 * n for n in range(20)]
        nested = group(chain(add.s(1, 1), group(add.s(1), add.s(2))), add.s(5, 5)).apply_async()
        assert await nested.aget(timeout=20) == [[3, 4], 10]
        failing = group(shop.hold.s(str(tmp_path / "gate")), shop.charge.s(-1)).apply_async()
        with pytest.raises(ValueError, match="cannot charge -1"):
            await failing.aget(timeout=20)
        (tmp_path / "gate").touch()
        with pytest.raises(ValueError, match="cannot charge -1"):
            await chain(shop.charge.s(-1), shop.greet.si("never")).apply_async().aget(timeout=20)

    run(main())


def test_an_async_task_submits_and_waits_on_the_workers_own_loop(
    worker: Callable[..., Process], redis_server: RedisServer
) -> None:
    worker("-c", "1", TASKAPP_INCLUDE=SHOP)

    result = shop.relay.delay([str(n) for n in range(20)])

    assert result.get(timeout=30) == [f"hello {n}" for n in range(20)]
    kept = [json.loads(redis_server.client.get(f"celery-task-meta-{child.id}")) for child in result.children]
    assert [meta["parent_id"] for meta in kept] == [result.id] * 20


# --- in numbers -------------------------------------------------------------------------------------


@pytest.mark.quick("uvloop")
def test_thousands_at_once_take_one_subscription_and_no_thread_each(redis_server: RedisServer, run: Run) -> None:
    count = examples(10_000)

    async def main() -> None:
        await shop.greet.adelay("first")
        before = threading.active_count()
        redis_server.client.config_resetstat()
        results = await asyncio.gather(*(shop.greet.adelay(str(n)) for n in range(count)))
        pushes = redis_server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
        waiting = asyncio.gather(*(result.aget(timeout=100) for result in results))
        await until(lambda: subscribed(redis_server) == count, 60)
        subscribers = [client for client in redis_server.client.client_list() if client["sub"] != "0"]
        threads = threading.active_count()
        values = {result.id: number for number, result in enumerate(results)}
        await asyncio.to_thread(store, redis_server, values)

        assert await waiting == list(range(count))
        assert redis_server.client.llen(Keys().ready("default")) == count + 1
        assert pushes < count / 2
        assert len(subscribers) == 1
        assert threads <= before + 3  # the one that listens, and two of this test
        await until(lambda: subscribed(redis_server) == 0)

    run(main())


def test_many_loops_in_many_threads_share_one_pusher(redis_server: RedisServer, run: Run) -> None:
    found: list[Any] = []

    async def main(number: int) -> None:
        results = await asyncio.gather(*(shop.greet.adelay(f"{number}-{n}") for n in range(100)))
        values = {result.id: n for n, result in enumerate(results)}
        waiting = asyncio.gather(*(result.aget(timeout=30) for result in results))
        await asyncio.to_thread(store, redis_server, values)
        assert await waiting == list(range(100))
        found.extend(values)

    threads = [threading.Thread(target=lambda n=n: run(main(n))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == redis_server.client.llen(Keys().ready("default")) == 600
    assert sum(thread.name == "taskapp-pusher" for thread in threading.enumerate()) == 1
    assert sum(thread.name == "taskapp-results" for thread in threading.enumerate()) == 1


# --- the server is away -----------------------------------------------------------------------------


@pytest.mark.quick("uvloop")
def test_a_frozen_server_blocks_no_loop_and_its_outcome_is_unknown(redis_server: RedisServer, run: Run) -> None:
    async def main() -> None:
        await shop.greet.adelay("first")
        redis_server.freeze()
        began = time.monotonic()
        async with never_blocked():
            outcomes = await asyncio.gather(
                *(shop.greet.aapply_async((str(n),), task_id=f"id-{n}") for n in range(5)), return_exceptions=True
            )
        assert time.monotonic() - began < 15
        redis_server.thaw()
        # What waited behind the push with the unknown outcome was never sent.
        assert {type(outcome) for outcome in outcomes} <= {SubmitOutcomeUnknown, BrokerUnavailable}
        assert isinstance(outcomes[0], SubmitOutcomeUnknown)
        assert outcomes[0].task_ids == ["id-0"]
        for n in range(5):
            await shop.greet.aapply_async((str(n),), task_id=f"id-{n}")
        assert redis_server.client.llen(Keys().ready("default")) == 6

    run(main())


@pytest.mark.quick("uvloop")
def test_a_server_that_is_gone_is_said_to_be(redis_server: RedisServer, run: Run) -> None:
    async def main() -> None:
        await shop.greet.adelay("first")
        redis_server.stop()
        try:
            async with never_blocked():
                with pytest.raises(BrokerUnavailable, match=r"id lost\) within 4 s.* it is not queued"):
                    await shop.greet.aapply_async(("x",), task_id="lost")
                with pytest.raises(SubmitInterrupted, match="0 are queued, 3 are not, the outcome of 0 is unknown"):
                    await shop.greet.asubmit_many([("x",)] * 3)
        finally:
            redis_server.start()
        await shop.greet.adelay("again")
        assert redis_server.client.llen(Keys().ready("default")) == 2

    run(main())


def test_who_waits_lives_through_a_restart_of_the_server(redis_server: RedisServer, run: Run) -> None:
    async def main() -> None:
        early, late = await shop.greet.adelay("early"), await shop.greet.adelay("late")
        async with never_blocked():
            waiting = asyncio.gather(early.aget(timeout=30), late.aget(timeout=30))
            await until(lambda: subscribed(redis_server) == 2)
            await asyncio.to_thread(redis_server.stop)
            await asyncio.to_thread(redis_server.start)
            store(redis_server, {early.id: "stored before the listener is back"})
            await until(lambda: subscribed(redis_server) == 2 or early._cache)
            store(redis_server, {late.id: "stored after"})
            assert await waiting == ["stored before the listener is back", "stored after"]

    run(main())


# --- cancelled, closed, forked ----------------------------------------------------------------------


def test_a_submit_that_is_cancelled_before_its_turn_is_not_queued(redis_server: RedisServer, run: Run) -> None:
    async def main() -> None:
        await shop.greet.adelay("first")
        redis_server.freeze()
        in_flight = asyncio.create_task(shop.greet.adelay("in flight"))
        await asyncio.sleep(0.2)
        waiting = [asyncio.create_task(shop.greet.adelay(str(n))) for n in range(3)]
        await asyncio.sleep(0.2)
        waiting[1].cancel()
        await asyncio.sleep(0)
        redis_server.thaw()
        await asyncio.gather(in_flight, waiting[0], waiting[2])
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        assert redis_server.client.llen(Keys().ready("default")) == 4

    run(main())


def test_a_loop_that_was_closed_meanwhile_harms_no_other(redis_server: RedisServer, run: Run) -> None:
    async def leave() -> None:
        result = await shop.greet.adelay("first")
        redis_server.freeze()
        tasks = [asyncio.create_task(shop.greet.adelay("left")), asyncio.create_task(result.aget())]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in tasks)

    async def stay() -> None:
        result = await shop.greet.adelay("second")
        await asyncio.to_thread(store, redis_server, {result.id: 7})
        assert await result.aget(timeout=20) == 7

    run(leave())
    redis_server.thaw()
    run(stay())
    eventually(lambda: redis_server.client.llen(Keys().ready("default")) == 3)


def test_a_forked_process_has_threads_and_connections_of_its_own(redis_server: RedisServer) -> None:
    script = """
import asyncio, os, taskapp.celery
from tests.integration.shop import greet
made = []
async def main(name):
    results = await asyncio.gather(*(greet.adelay(name) for _ in range(20)))
    waiting = asyncio.create_task(results[0].aget(timeout=20))
    await asyncio.sleep(0)
    await asyncio.to_thread(taskapp.celery.app.backend.store_result, results[0].id, 7, "SUCCESS")
    print(name, await waiting, flush=True)
    made.append(results[1])
    made.append(results[2])  # after the fork, one that was made before it is waited for
    waiting = asyncio.create_task(made[len(made) // 4].aget(timeout=20))
    await asyncio.sleep(0)
    await asyncio.to_thread(taskapp.celery.app.backend.store_result, made[len(made) // 4].id, 8, "SUCCESS")
    print(name, await waiting, flush=True)
def run(name):
    asyncio.run(main(name))
run("parent")
child = os.fork()
run("child" if not child else "parent")
if child: os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60,
        env=clean_environment(TASKAPP_BROKER_URL=redis_server.url, PYTHONPATH=os.environ.get("PYTHONPATH", "")),
    )  # fmt: skip

    assert sorted(done.stdout.splitlines()) == ["child 7", "child 8", "parent 7", "parent 7", "parent 8", "parent 8"], (
        done.stderr
    )
    assert redis_server.client.llen(Keys().ready("default")) == 60


# --- waiting ----------------------------------------------------------------------------------------


def test_a_wait_ends_with_its_timeout_and_leaves_no_subscription(redis_server: RedisServer, run: Run) -> None:
    async def main() -> None:
        result = await shop.greet.adelay("x")
        began = time.monotonic()
        with pytest.raises(ResultTimeoutError, match="timed out"):
            await result.aget(timeout=0.3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await result.aget(timeout=20)
        assert 0.5 < time.monotonic() - began < 15
        await until(lambda: subscribed(redis_server) == 0)
        store(redis_server, {result.id: 1}, state="STARTED")
        waiting = asyncio.create_task(result.aget(timeout=20))
        await until(lambda: subscribed(redis_server) == 1)
        store(redis_server, {result.id: RETRIED}, state="RETRY")
        store(redis_server, {result.id: 2})
        assert await waiting == 2
        assert await result.aget() == 2
        assert result.state == states.SUCCESS

    run(main())


def test_several_wait_for_the_same_result(redis_server: RedisServer, app: Celery, run: Run) -> None:
    async def main() -> None:
        result = await shop.greet.adelay("x")
        others = [app.AsyncResult(result.id) for _ in range(5)]
        waiting = asyncio.gather(*(one.aget(timeout=20) for one in [result, *others, result]))
        await until(lambda: subscribed(redis_server) == 1)
        store(redis_server, {result.id: 3})
        assert await waiting == [3] * 7

    run(main())


def test_what_is_not_kept_is_not_waited_for_and_what_ran_at_once_is_there(app: Celery, run: Run) -> None:
    async def main() -> None:
        assert await (await shop.greet.aapply_async(("x",), ignore_result=True)).aget() is None
        app.conf.task_always_eager = True
        try:
            assert await (await shop.greet.adelay("Ada")).aget(timeout=1) == "hello Ada"
            eager = group(shop.greet.s("a"), shop.greet.s("b")).apply_async()
            assert await eager.aget(timeout=1) == ["hello a", "hello b"]
        finally:
            del app.conf["task_always_eager"]

    run(main())


def test_what_cannot_be_submitted_is_refused_at_once(redis_server: RedisServer, run: Run) -> None:
    async def main() -> None:
        with pytest.raises(InvalidPayload):
            await shop.greet.adelay(object())
        with pytest.raises(SubmitInterrupted, match="200 are queued, 3 are not") as caught:
            await shop.greet.asubmit_many([("x",)] * 201 + [7] + [("y",)])  # type: ignore[list-item]
        assert caught.value.not_queued == [("x",), 7, ("y",)]
        assert redis_server.client.llen(Keys().ready("default")) == 200

    run(main())
