"""Limits of queues: how many messages may wait, decided by the step that queues them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

import pytest

from taskapp.engine.envelope import seal
from taskapp.engine.options import Options
from taskapp.engine.producer import Message, Producer
from taskapp.engine.queue_limits import NO_LIMIT, QueueLimits
from taskapp.errors.publishing import QueueFull
from taskapp.redis.link import Link
from tests.engine.bench import TASK, Bench, leaving, names

Make = Callable[..., Bench]
HOUR_MS = 3_600_000


def message(name: str, queue: str = "q1", priority: int = 0, due_ms: int = 0, *, relayed: bool = False) -> Message:
    return Message(queue, priority, due_ms, name, seal(name, TASK, priority, name.encode()), is_relayed=relayed)


@pytest.fixture
def limited(make_bench: Make) -> Bench:
    """A bench whose producers let three messages wait in q1."""
    return make_bench(queue_limits={"q1": 3})


def limits_of(bench: Bench) -> QueueLimits:
    return QueueLimits(bench.link, bench.options.prefix)


def test_a_full_queue_refuses_a_message_and_names_itself(limited: Bench) -> None:
    limited.push("a", "b", "c")

    with pytest.raises(QueueFull, match="queue 'q1' has no room: 3 of at most 3 tasks wait; not queued") as caught:
        limited.push("d")

    assert caught.value.task_ids == ["d"]
    assert (caught.value.queue, caught.value.limit, caught.value.waiting) == ("q1", 3, 3)
    assert limited.ready() == [seal(name, TASK, 0, name.encode()) for name in "abc"]


def test_all_priorities_and_delayed_messages_count_and_held_ones_do_not(limited: Bench) -> None:
    limited.push("nine", priority=9)
    limited.push("later", due_ms=limited.now_ms() + HOUR_MS)
    limited.push("zero")

    with pytest.raises(QueueFull):
        limited.push("too many", priority=4)
    with pytest.raises(QueueFull):
        limited.push("too many", due_ms=limited.now_ms() + HOUR_MS)
    with pytest.raises(QueueFull):
        limited.producer.push([message("too many", relayed=True)])

    node = limited.node()
    assert names(node.take(1)) == ["nine"]
    limited.push("room")


def test_a_step_is_refused_as_a_whole_and_what_follows_with_it(limited: Bench) -> None:
    steps = [message(str(number), "q2") for number in range(1_000)]
    steps += [message("q2 again", "q2"), *(message(name) for name in "abcd")]

    with pytest.raises(QueueFull) as caught:
        limited.producer.push(steps)

    assert caught.value.task_ids == ["q2 again", "a", "b", "c", "d"]
    assert len(limited.ready("q2")) == 1_000
    assert limited.ready() == []


def test_what_belongs_to_accepted_work_is_always_queued(limited: Bench) -> None:
    limited.push("a", "b", "c")
    node = limited.node()
    first, second = node.take(2)
    limited.push("d", "e")

    node.give_back([second.tag])
    node.settle(first.tag, leaving(*(message(name) for name in ("retry", "callback"))))
    node.done()

    assert len(limited.ready()) == 6
    with pytest.raises(QueueFull, match="6 of at most 3"):
        limited.push("f")


def test_a_limit_set_at_run_time_wins_until_it_is_cleared(limited: Bench) -> None:
    limits = limits_of(limited)

    limits.set("q1", 1)
    limits.set("q2", 2)
    limited.push("a")
    with pytest.raises(QueueFull, match="1 of at most 1"):
        limited.push("b")
    with pytest.raises(QueueFull, match="queue 'q2' has no room: 0 of at most 2"):
        limited.push("1", "2", "3", queue="q2")
    limits.set("q1", NO_LIMIT)
    limited.push(*"bcdefg")
    assert limits.read() == {"q1": NO_LIMIT, "q2": 2}

    assert limits.clear("q1")
    assert not limits.clear("q1")
    with pytest.raises(QueueFull, match="7 of at most 3"):
        limited.push("h")
    assert limits.clear("q2")
    assert limits.read() == {}
    assert not limited.client.hexists(limited.keys("clock"), "queue_limits")


def test_many_producers_together_never_exceed_a_limit(limited: Bench) -> None:
    limits_of(limited).set("q1", 100)
    refused: list[str] = []

    def push_many(prefix: str) -> None:
        producer = Producer(Link(limited.connect), limited.options, 4.0)
        for number in range(50):
            try:
                producer.push([message(f"{prefix}{number}")])
            except QueueFull as full:
                refused.extend(full.task_ids)
        producer.link.close()

    threads = [Thread(target=push_many, args=(prefix,)) for prefix in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(limited.ready()) == 100
    assert len(refused) == 100


def test_a_producer_that_waits_gets_room_and_others_push_meanwhile(make_bench: Make) -> None:
    bench = make_bench(queue_limits={"q1": 2}, waits_for_room=True)
    bench.push("a", "b")
    waiting = Thread(target=bench.push, args=("c",))

    waiting.start()
    for number in range(20):
        bench.push(str(number), queue="q2")
    assert waiting.is_alive()
    node = bench.node()
    assert names(node.take(1)) == ["a"]
    waiting.join(10)

    assert [seal(name, TASK, 0, name.encode()) for name in "bc"] == bench.ready()


def test_a_producer_that_waits_gives_up_at_its_deadline(make_bench: Make) -> None:
    bench = make_bench(queue_limits={"q1": 1}, waits_for_room=True)
    bench.push("a")
    impatient = Producer(Link(bench.connect), Options(queue_limits={"q1": 1}, waits_for_room=True), 0.3)

    with pytest.raises(QueueFull):
        impatient.push([message("b")])
    impatient.link.close()


def test_the_time_until_there_is_room_comes_from_the_pace_of_the_last_minute(limited: Bench) -> None:
    limited.push("a", "b", "c")
    with pytest.raises(QueueFull) as caught:
        limited.push("d")
    assert caught.value.retry_after_seconds == 60

    node = limited.node()
    for _ in range(20):
        node.settle(node.take(1)[0].tag)
        limited.push("more")
    node.done()

    def of_two() -> float:
        with pytest.raises(QueueFull) as caught:
            limited.push("d", "e")
        return caught.value.retry_after_seconds

    # Twenty were taken within 60 to 120 seconds, as far as whole minutes tell: 3 to 6 s each.
    assert 6 <= of_two() <= 12
