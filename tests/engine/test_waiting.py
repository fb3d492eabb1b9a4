"""Consumers that wait: nobody polls, and nobody is forgotten."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from time import monotonic

import pytest

from taskapp.engine import fetcher
from taskapp.engine.fetcher import LOOK_SECONDS
from tests.engine.bench import Bench, Shift
from tests.support import eventually

AT_ONCE_SECONDS = 5.0
"""Above what the busiest machine needs (1 ms on a quiet one), and far below what a lost wake-up costs."""
LOST_SECONDS = 20
"""What a lost wake-up costs here: how long a consumer waits before it looks by itself."""
Hire = Callable[..., Shift]


@pytest.fixture
def hire(hire_looking: Hire, monkeypatch: pytest.MonkeyPatch) -> Hire:
    """Start a consumer that looks by itself so seldom that only a wake-up brings it a message in time."""
    monkeypatch.setattr(fetcher, "LOOK_SECONDS", LOST_SECONDS)
    return hire_looking


@pytest.fixture
def hire_looking(bench: Bench) -> Iterator[Hire]:
    """Start a consumer on a thread of its own: ``hire(["q1"], slots=2, seconds=0.002)``."""
    over, shifts = Event(), []

    def start(queues: Sequence[str] = ("q1", "q2"), **keywords: object) -> Shift:
        shift = Shift(bench, queues, **keywords)
        thread = Thread(target=work, args=(shift, over))
        thread.start()
        shifts.append((shift, thread))
        return shift

    yield start
    over.set()
    for _, thread in shifts:
        thread.join(10)
    for shift, _ in shifts:
        shift.stop()


def work(shift: Shift, over: Event) -> None:
    while not over.is_set():
        shift.turn(0.05)


def started(shifts: Sequence[Shift]) -> dict[str, float]:
    return {name: at for shift in shifts for name, at in list(shift.started.items())}


def wait_for_idleness(bench: Bench, waiting: int) -> None:
    """Wait until that many consumers hold a blocking pop."""
    eventually(lambda: sum(client["cmd"] == "brpop" for client in bench.client.client_list()) >= waiting)


def lateness(bench: Bench, shifts: Sequence[Shift], messages: Sequence[tuple[str, str, int]]) -> float:
    """Push messages one by one; return how long the last to start waited."""
    pushed = {}
    for name, queue, priority in messages:
        pushed[name] = monotonic()
        bench.push(name, queue=queue, priority=priority)
    eventually(lambda: pushed.keys() <= started(shifts).keys(), every_seconds=0.001)
    return max(started(shifts)[name] - at for name, at in pushed.items())


def test_no_wake_up_is_lost_between_three_consumers(bench: Bench, hire: Hire) -> None:
    shifts = [hire(slots=slots, seconds=seconds) for slots, seconds in ((1, 0.0), (1, 0.003), (2, 0.001))]
    wait_for_idleness(bench, 3)
    dice, late = random.Random(7), []
    for round_number in range(600):
        messages = [
            (f"{round_number}-{number}", dice.choice(["q1", "q2"]), dice.choice([0, 9]))
            for number in range(dice.choice([1, 1, 2, 3, 8]))
        ]
        late.append(lateness(bench, shifts, messages))

    assert max(late) < AT_ONCE_SECONDS, f"somebody was woken {max(late) * 1e3:.0f} ms late"
    assert len({name for shift in shifts for name in shift.started}) == sum(len(shift.started) for shift in shifts)


def test_whoever_consumes_only_the_second_queue_is_woken_too(bench: Bench, hire: Hire) -> None:
    both, second = hire(slots=1, seconds=30.0), hire(["q2"], slots=5)
    wait_for_idleness(bench, 2)
    # Whoever takes everything is busy for long, and has left something in each queue.
    assert lateness(bench, [both], [("long", "q1", 0)]) < AT_ONCE_SECONDS
    bench.push("stays", queue="q1")

    assert lateness(bench, [second], [("quick", "q2", 0)]) < AT_ONCE_SECONDS
    assert "stays" not in started([both, second])


def test_a_claim_wakes_consumers_of_every_queue_in_which_it_left_something(bench: Bench) -> None:
    node = bench.node()
    bench.push("a", "b", queue="q1")
    bench.push("c", queue="q2")
    bench.client.delete(bench.keys("wake", "q1"), bench.keys("wake", "q2"))

    node.take(1)

    assert [bench.client.llen(bench.keys("wake", queue)) for queue in ("q1", "q2")] == [1, 1]


def test_a_message_that_one_node_cannot_run_wakes_one_that_can(bench: Bench, hire: Hire) -> None:
    unable = hire(types=["shop.video"])
    wait_for_idleness(bench, 1)
    able = hire(types=["shop.mail", "shop.video"])
    wait_for_idleness(bench, 2)

    # Who waits longest is woken, so each is in turn; what one cannot run it sets aside.
    late = [lateness(bench, [able], [(f"mail {number}", "q1", 0)]) for number in range(20)]

    assert max(late) < AT_ONCE_SECONDS
    assert unable.started == {}


@pytest.mark.parametrize("hired", [1, 3])
def test_a_delayed_message_starts_when_it_is_due_and_never_before(bench: Bench, hire: Hire, hired: int) -> None:
    shifts = [hire() for _ in range(hired)]
    wait_for_idleness(bench, hired)
    dice, due = random.Random(3), {}
    here_ms, there_ms = monotonic() * 1_000, bench.now_ms()
    for number in range(30):
        due[f"id-{number}"] = there_ms + dice.randrange(200, 1_500)
        bench.push(f"id-{number}", due_ms=due[f"id-{number}"], queue=dice.choice(["q1", "q2"]))
    eventually(lambda: due.keys() <= started(shifts).keys())

    late_ms = sorted(at * 1_000 - here_ms - (due[name] - there_ms) for name, at in started(shifts).items())
    assert late_ms[0] > -2, "a message started before it was due"
    assert late_ms[-1] < AT_ONCE_SECONDS * 1_000


def test_a_message_that_becomes_due_sooner_than_all_others_is_not_overslept(bench: Bench, hire: Hire) -> None:
    shift = hire()
    bench.push("later", due_ms=bench.now_ms() + 60_000)
    wait_for_idleness(bench, 1)

    at = monotonic()
    bench.push("sooner", due_ms=bench.now_ms() + 100)
    eventually(lambda: "sooner" in shift.started, every_seconds=0.002)

    assert 0.09 < shift.started["sooner"] - at < AT_ONCE_SECONDS


def test_moving_a_delayed_message_to_an_earlier_time_wakes_a_consumer(bench: Bench, hire: Hire) -> None:
    shift = hire()
    bench.push("later", due_ms=bench.now_ms() + 60_000)
    wait_for_idleness(bench, 1)

    at = monotonic()
    assert bench.delayed.reschedule("later", 0.05)
    eventually(lambda: "later" in shift.started, every_seconds=0.002)

    assert shift.started["later"] - at < AT_ONCE_SECONDS


def test_messages_that_others_push_without_a_wake_up_are_found_within_a_second(
    bench: Bench, hire_looking: Hire
) -> None:
    shift = hire_looking()
    wait_for_idleness(bench, 1)

    at = monotonic()
    bench.client.lpush("q1", b"stock")
    eventually(lambda: "stock" in shift.started)

    assert shift.started["stock"] - at < LOOK_SECONDS + AT_ONCE_SECONDS


def test_what_a_dead_node_held_wakes_a_waiting_consumer_when_it_is_reaped(bench: Bench, hire: Hire) -> None:
    bench.push("held")
    dead = bench.node()
    assert len(dead.take()) == 1
    dead.die()
    shift = hire()
    wait_for_idleness(bench, 1)

    bench.end_leases(dead.epoch)
    at = monotonic()
    bench.reap()
    eventually(lambda: "held" in shift.started, every_seconds=0.002)

    assert shift.started["held"] - at < AT_ONCE_SECONDS


def test_an_idle_consumer_asks_the_server_three_times_a_second_at_most(bench: Bench, hire_looking: Hire) -> None:
    hire_looking()
    wait_for_idleness(bench, 1)
    bench.client.config_resetstat()
    at = monotonic()

    eventually(lambda: monotonic() - at > 3)

    asked = bench.client.info("commandstats")
    seconds = monotonic() - at
    beats = seconds / (bench.options.lease_seconds / 3) + 1
    # It claims, and looks for messages of stock clients; its lease is renewed as well.
    assert asked["cmdstat_evalsha"]["calls"] <= 2 * (seconds + 1) + beats
    assert asked["cmdstat_brpop"]["calls"] <= 2 * seconds


def test_a_consumer_finds_its_way_back_after_the_server_went_away(bench: Bench, hire_looking: Hire, server) -> None:
    shift = hire_looking()
    wait_for_idleness(bench, 1)
    server.kill()
    server.start()

    eventually(lambda: bench.push("after") is None)
    eventually(lambda: "after" in shift.started)
