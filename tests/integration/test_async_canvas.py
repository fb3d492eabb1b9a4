"""Coroutines submit signatures, groups, chains and chords, and await their results."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import celery
import pytest
from celery import states

import taskapp
from taskapp import chain, chord, group, signature
from taskapp.errors import InvalidPayload
from taskapp.tasks import add
from tests.integration import shop
from tests.integration.test_async_client import SHOP, never_blocked
from tests.support import Process, RedisServer

pytestmark = pytest.mark.usefixtures("app")
KINDS: dict[str, Callable[[], Any]] = {
    "signature": lambda: add.s(1, 2),
    "signature with options": lambda: add.s(1).set(priority=9).clone(args=(2,)),
    "signature by name": lambda: signature("taskapp.add", args=(1, 2)),
    "chain": lambda: chain(add.s(1, 1), add.s(1)),
    "chain by operator": lambda: add.s(0, 1) | add.s(1) | add.s(1),
    "chain of one": lambda: chain(add.s(1, 2)),
    "clone of a chain": lambda: chain(add.s(1, 1), add.s(1)).clone(),
    "chord": lambda: chord([add.s(1, 0), add.s(1, 1)], shop.total.s()),
    "chord by operator": lambda: group(add.s(1, 0), add.s(1, 1)) | shop.total.s(),
    "chain that begins with a chord": lambda: chain(group(add.s(1, 0), add.s(0, 1)), shop.total.s(), add.s(1)),
    "chord of chords": lambda: chord([chord([add.s(1, 0), add.s(0, 1)], shop.total.s()), add.s(0, 1)], shop.total.s()),
    "large chord": lambda: chord([add.s(0, 0) for _ in range(250)] + [add.s(3, 0)], shop.total.s()),
}


async def results_of_all() -> dict[str, Any]:
    submitted = {kind: await make().aapply_async() for kind, make in KINDS.items()}
    return {kind: await result for kind, result in submitted.items()}


async def results_of_groups() -> list[Any]:
    plain = await group(add.s(n, n) for n in range(3)).aapply_async()
    assert isinstance(plain, taskapp.GroupResult)
    nested = await group(chain(add.s(1, 1), add.s(1)), group(add.s(2, 2), add.s(3, 3))).adelay()
    partial = await group([add.s(1), add.s(2)]).adelay(10)
    large = await group(add.s(n, 0) for n in range(450)).aapply_async(priority=3)
    assert await large == list(range(450))
    return [await plain, await nested, await partial]


def test_each_canvas_is_submitted_and_awaited(worker: Callable[..., Process]) -> None:
    worker("-P", "threads", "-c", "4", TASKAPP_INCLUDE=SHOP)

    async def main() -> None:
        async with never_blocked():
            assert await results_of_all() == dict.fromkeys(KINDS, 3)
            assert await results_of_groups() == [[0, 2, 4], [3, 4, 6], [11, 12]]

    asyncio.run(main())


def test_an_async_task_submits_a_canvas_and_awaits_it(worker: Callable[..., Process]) -> None:
    worker("-c", "1", TASKAPP_INCLUDE=SHOP)

    result = shop.chords_inside.delay(3)

    assert result.get(timeout=30) == [6, 6]
    assert len(result.children) == 2


def test_a_failure_is_raised_where_it_is_awaited(worker: Callable[..., Process]) -> None:
    worker("-P", "threads", "-c", "4", TASKAPP_INCLUDE=SHOP)

    async def main() -> None:
        for canvas in (
            shop.charge.s(-1), chain(shop.charge.s(-1), shop.greet.si("never")), group(shop.charge.s(-1), add.s(1, 1)),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="cannot charge -1"):
                await (await canvas.aapply_async())

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["chain", "chord", "chord of chords", "large chord"])
def test_the_loop_runs_while_the_server_does_not_answer(redis_server: RedisServer, kind: str) -> None:
    async def main() -> None:
        await add.adelay(0, 0)  # opens the connections
        redis_server.freeze()
        async with never_blocked(0.5):
            submitting = asyncio.create_task(KINDS[kind]().aapply_async())
            done, _ = await asyncio.wait([submitting], timeout=1.5)
            assert not done
            redis_server.heal()
            result = await asyncio.wait_for(submitting, 20)
        assert result.state == states.PENDING

    asyncio.run(main())


def test_a_canvas_costs_no_thread_each() -> None:
    async def main() -> None:
        await add.adelay(0, 0)
        before = threading.active_count()
        await asyncio.gather(*(chain(add.s(1, 1), add.s(n)).aapply_async() for n in range(300)))
        assert threading.active_count() == before

    asyncio.run(main())


def test_an_invalid_argument_queues_nothing(redis_server: RedisServer) -> None:
    async def main() -> None:
        await shop.greet.adelay("first")
        before = redis_server.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
        with pytest.raises(InvalidPayload):
            await group(shop.greet.s("Ada"), shop.pay.s({"id": "seven"})).aapply_async()
        assert redis_server.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0) == before

    asyncio.run(main())


def test_canvas_of_stock_celery_is_submitted_on_a_thread() -> None:
    stock = celery.Celery("stock", broker="memory://", backend="cache+memory://", set_as_current=False)

    @stock.task(name="stock.add")
    def plus(x: int, y: int) -> int:
        return x + y

    threads: list[int] = []

    async def main() -> None:
        made = group(plus.s(1, 1), plus.s(2, 2))
        send, own = stock.send_task, threading.get_ident()
        stock.send_task = lambda *args, **options: (threads.append(threading.get_ident()), send(*args, **options))[1]
        assert len((await made.aapply_async()).results) == 2
        assert own not in threads

    asyncio.run(main())
    assert threads


def test_what_is_made_of_a_canvas_can_be_submitted_by_coroutines_too() -> None:
    one, two = add.s(1), add.s(2)
    made = [
        one | two, one | group(one, two), group(one, two) | one, chord([one], two) | one, chain(one, two) | two,
        chain(one, two) | chain(one, two), chain(one), chain([one, two]), chain(one, two, app=one.app), group([one]),
        chain(one, two).clone(), group(one, two).clone(), chord([one], two).clone(), one.clone(), add.si(1, 1).set(
            priority=1
        ).clone(), one.app.signature("taskapp.add"), signature(dict(one)),
    ]  # fmt: skip

    assert [type(each).__name__ for each in made if not isinstance(each, taskapp.Signature)] == []


def test_a_canvas_is_the_same_as_celerys() -> None:
    steps: list[tuple[Any, ...]] = [
        (), (add.s(1, 1),), (add.s(1, 1), add.s(2)), ([add.s(1, 1), add.s(2)],),
        (group(add.s(1), add.s(2)), add.s(3)), (add.s(1), group(add.s(1), add.s(2)), add.s(3), group(add.s(1))),
    ]  # fmt: skip
    for tasks in steps:
        assert dict(chain(*tasks)) == dict(celery.chain(*tasks))
        assert dict(group(*tasks)) == dict(celery.group(*tasks))
    assert dict(chord([add.s(1)], add.s(2))) == dict(celery.chord([add.s(1)], add.s(2)))


def test_eager_tasks_run_where_they_are_submitted(app: Any) -> None:
    async def main() -> None:
        assert await (await chain(add.s(1, 1), add.s(2)).aapply_async()) == 4
        assert await (await group(add.s(1, 1), add.s(2, 2)).aapply_async()) == [2, 4]

    app.conf.task_always_eager = True
    try:
        asyncio.run(main())
    finally:
        del app.conf["task_always_eager"]
