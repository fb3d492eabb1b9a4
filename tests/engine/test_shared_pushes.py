"""Pushes that coroutines share, when a queue has no room for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from taskapp.client.async_pusher import Pusher, _PushRequest
from taskapp.engine.envelope import seal, unseal
from taskapp.engine.producer import Message
from taskapp.errors.publishing import QueueFull
from tests.engine.bench import TASK, Bench

Make = Callable[..., Bench]


def messages(prefix: str, count: int, queue: str = "q1") -> list[Message]:
    names = [f"{prefix}{number}" for number in range(count)]
    return [Message(queue, 0, 0, name, seal(name, TASK, 0, name.encode())) for name in names]


def pushed(producer: Any, *requests: Sequence[Message]) -> list[Any]:
    """Push ``requests`` together, as the thread does; return what each coroutine gets."""

    async def push() -> list[Any]:
        made = [_PushRequest(producer, each, monotonic() + 5) for each in requests]
        assert await asyncio.to_thread(Pusher._push, made) == []
        return await asyncio.gather(*(each.future for each in made), return_exceptions=True)

    return asyncio.run(push())


def ids(bench: Bench, queue: str = "q1") -> list[str]:
    return [unseal(blob).id for blob in bench.ready(queue)]


def test_each_gets_the_room_that_is_left_and_other_queues_are_not_touched(make_bench: Make) -> None:
    bench = make_bench(queue_limits={"q1": 4})

    outcomes = pushed(
        bench.producer, messages("a", 2), messages("x", 3, "q2"), messages("b", 3), messages("c", 1), messages("d", 1),
        messages("e", 1), messages("y", 1, "q2"),
    )  # fmt: skip

    assert [isinstance(outcome, QueueFull) for outcome in outcomes] == [False, False, True, False, False, True, False]
    assert ids(bench) == ["a0", "a1", "c0", "d0"]
    assert sorted(ids(bench, "q2")) == ["x0", "x1", "x2", "y0"]
    assert outcomes[2].task_ids == ["b0", "b1", "b2"]
    assert outcomes[5].task_ids == ["e0"]


def test_what_an_earlier_step_has_queued_is_not_queued_again(make_bench: Make) -> None:
    bench = make_bench(queue_limits={"q1": 1_200})

    first, second = pushed(bench.producer, messages("a", 999), messages("b", 500))

    assert first is None
    assert isinstance(second, QueueFull)
    assert second.task_ids == [f"b{number}" for number in range(1, 500)]
    assert ids(bench) == [*(f"a{number}" for number in range(999)), "b0"]


def test_a_full_queue_costs_one_push_however_many_wait_for_it(make_bench: Make) -> None:
    bench = make_bench(queue_limits={"q1": 1})
    bench.push("there")
    bench.client.config_resetstat()

    outcomes = pushed(bench.producer, *(messages(f"{number}-", 1) for number in range(300)))

    assert all(isinstance(outcome, QueueFull) for outcome in outcomes)
    assert bench.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 1


def test_an_error_of_one_request_reaches_its_coroutine_and_spares_the_others(make_bench: Make) -> None:
    bench = make_bench(queue_limits={"q1": 2})
    broken = Message("q1", 0, 0, "broken", ["no bytes"])  # type: ignore[arg-type]  # cannot be sent

    class Producer:
        def push_now(self, some: Sequence[Message], deadline: float) -> None:
            if len(some) > 1:
                raise QueueFull([each.id for each in some], "q1", 2, 1, 1.0)
            bench.producer.push_now(some, deadline)

    first, second, third = pushed(Producer(), messages("a", 1), [broken], messages("b", 1))

    assert (first, third) == (None, None)
    assert isinstance(second, TypeError)
    assert ids(bench) == ["a0", "b0"]
