"""Since when a task may run: the one moment that its message, the oldest of its queue and the counted wait agree on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from taskapp.engine.envelope import seal, unseal
from taskapp.engine.producer import Message
from taskapp.engine.settlement import ChordPart
from taskapp.engine.snapshot import read_snapshot
from taskapp.transport.codec import READY_AT_HEADER, SENT_AT_HEADER, pack_task, ready_at_of, unpack
from tests.engine.bench import TASK, Bench, TestNode, leaving
from tests.support import eventually, examples

AGE_SECONDS = 1_200.0
"""For how long a task was there before it could run."""
SLOW_SECONDS = 60.0
"""No machine takes as long for a step."""


def old_message(bench: Bench, **headers: Any) -> bytes:
    known = {**headers, "id": "an id", "task": TASK, SENT_AT_HEADER: bench.now_ms() / 1_000 - AGE_SECONDS}
    return pack_task(("[[], {}, {}]", "application/json", "utf-8"), known, 0, None, None, "", "q1")


def push_old(bench: Bench, **headers: Any) -> None:
    bench.push_bytes(old_message(bench, **headers))


def become_ready(bench: Bench) -> None:
    """Wait until something is ready that was delayed."""
    eventually(lambda: bench.client.zcount(bench.keys("delayed", "q1"), 0, bench.now_ms()))


# --- what could not run -------------------------------------------------------------------------------


def replay(bench: Bench, **headers: Any) -> None:
    push_old(bench, **headers)
    node = bench.node(TASK)
    node.bury(node.take()[0].tag, "failed", "why")
    node.ends.flush()
    node.done()
    assert bench.dead.replay("q1", 1)


def replay_again(bench: Bench) -> None:
    replay(bench, **{READY_AT_HEADER: bench.now_ms() / 1_000 - AGE_SECONDS / 2})


def replay_before_it_is_due(bench: Bench) -> None:
    replay(bench, eta=datetime.fromtimestamp(bench.now_ms() / 1_000 + AGE_SECONDS, UTC).isoformat())


def find_no_node_with_its_type(bench: Bench) -> None:
    push_old(bench)
    stranger = bench.node("shop.video")
    stranger.park(stranger.take()[0].tag, TASK)
    stranger.done()
    eventually(lambda: bench.now_ms() > parked_since(bench))


def parked_since(bench: Bench) -> float:
    return float(bench.client.hget(bench.keys("parked", "q1"), TASK) or "inf")


def be_held_back(bench: Bench) -> None:
    push_old(bench)
    node = bench.node(TASK)
    node.give_back([node.take()[0].tag], delay_seconds=0.05)
    node.done()
    become_ready(bench)


def be_given_back_by_its_run(bench: Bench) -> None:
    push_old(bench)
    node = bench.node(TASK)
    node.give_back([node.take()[0].tag], "retry")
    node.done()


def lose_its_node(bench: Bench) -> None:
    push_old(bench)
    node = bench.node(TASK)
    node.take()
    node.die()
    bench.end_leases(node.epoch)
    bench.reap()


def be_rescheduled(bench: Bench) -> None:
    bench.producer.push([message_due_in(bench, 3_600_000)])
    assert bench.delayed.reschedule("an id", 0.05)
    become_ready(bench)


def be_put_off(bench: Bench) -> None:
    """Its headers say that it was due long ago."""
    bench.producer.push([message_due_in(bench, 3_600_000, eta="2020-01-01T00:00:00+00:00")])
    assert bench.delayed.reschedule("an id", 0.05)
    become_ready(bench)


def message_due_in(bench: Bench, ms: int, **headers: Any) -> Message:
    return Message("q1", 0, bench.now_ms() + ms, "an id", old_message(bench, **headers))


def end_a_chord(bench: Bench) -> None:
    bench.link.run("chord", "", 0, "a chord", 1, "about it", old_message(bench), 60)
    bench.push("the only part")
    node = bench.node(TASK)
    node.settle(node.take()[0].tag, leaving(ChordPart("a chord", "0", 1, b"a value", 60)))
    node.ends.flush()
    node.done()


COULD_NOT = [
    replay, replay_again, replay_before_it_is_due, find_no_node_with_its_type, be_held_back, be_given_back_by_its_run,
    lose_its_node, be_rescheduled, be_put_off, end_a_chord,
]  # fmt: skip


@pytest.mark.parametrize("happen", COULD_NOT, ids=lambda happen: happen.__name__)
def test_what_could_not_run_has_not_waited(happen: Callable[[Bench], None], make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()

    happen(bench)
    node = bench.node(TASK)
    oldest_seconds = oldest(bench)
    waited_seconds, claimed = wait_of_next(bench, node)

    assert 0 <= waited_seconds < SLOW_SECONDS
    assert oldest_seconds is None or 0 <= oldest_seconds < SLOW_SECONDS
    assert abs(unpack(unseal(claimed))["headers"][SENT_AT_HEADER] + AGE_SECONDS - bench.now_ms() / 1_000) < SLOW_SECONDS


def oldest(bench: Bench) -> float | None:
    [queue] = read_snapshot(bench.link, "", ["q1"]).queues
    return queue.oldest_seconds


def wait_of_next(bench: Bench, node: TestNode) -> tuple[float, bytes]:
    """Claim and return how long a task has waited, and its bytes."""
    [claimed] = node.take(1)
    ready_at = ready_at_of(unpack(claimed.envelope)["headers"])
    assert ready_at is not None
    return bench.now_ms() / 1_000 - ready_at, bench.client.hget(bench.keys("leased", node.epoch), claimed.tag)


# --- what could ---------------------------------------------------------------------------------------


def be_submitted(bench: Bench) -> TestNode:
    push_old(bench)
    return bench.node(TASK)


def be_looked_ahead_for(bench: Bench) -> TestNode:
    node = be_submitted(bench)
    node.give_back([node.take()[0].tag])
    node.done()
    return node


def have_a_node_that_closes(bench: Bench) -> TestNode:
    node = be_submitted(bench)
    node.take()
    node.close()
    return bench.node(TASK)


def be_parked_by_a_node_beside_its_own(bench: Bench) -> TestNode:
    node, stranger = bench.node(TASK), bench.node("shop.video")
    eventually(lambda: bench.now_ms() > float(bench.client.hget(bench.keys("node", node.epoch), "opened") or "inf"))
    push_old(bench)
    stranger.park(stranger.take()[0].tag, TASK)
    stranger.done()
    return node


COULD = [be_submitted, be_looked_ahead_for, have_a_node_that_closes, be_parked_by_a_node_beside_its_own]


@pytest.mark.parametrize("happen", COULD, ids=lambda happen: happen.__name__)
def test_what_could_run_has_waited(happen: Callable[[Bench], TestNode], make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()

    node = happen(bench)
    oldest_seconds = oldest(bench)
    waited_seconds, _ = wait_of_next(bench, node)

    assert waited_seconds == pytest.approx(AGE_SECONDS, abs=SLOW_SECONDS)
    assert oldest_seconds is None or oldest_seconds == pytest.approx(AGE_SECONDS, abs=SLOW_SECONDS)


# --- how it is written --------------------------------------------------------------------------------

texts = st.integers(0, 40).map("x".__mul__) | st.sampled_from(["x" * 255, "x" * 256, "é" * 40_000])
bodies = texts | st.sampled_from([b"", b"x" * 300, b"x" * 70_000])


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=bodies, encoding=st.none() | texts, number=st.sampled_from([0, 1, 12, 13, 14, 15, 16, 300]),
    times=st.integers(1, 3),
)  # fmt: skip
def test_nothing_else_of_a_message_changes(
    body: Any, encoding: str | None, number: int, times: int, bench: Bench
) -> None:
    headers = {"id": "an id", "task": TASK, **{f"header {each}": [each] for each in range(number)}}
    blob = pack_task((body, "application/json", encoding), headers, 3, "c", None, "", "q1")

    again = rescheduled(bench, blob, times)

    changed = unpack(unseal(again))
    assert type(changed["headers"].pop(READY_AT_HEADER)) is float
    assert changed == unpack(unseal(blob))


def rescheduled(bench: Bench, blob: bytes, times: int = 1) -> bytes:
    bench.client.hset(bench.keys("delayed_messages", "q1"), "an id", blob)
    bench.client.zadd(bench.keys("delayed", "q1"), {"an id": 1.0})
    for _ in range(times):
        assert bench.delayed.reschedule("an id", 1_000.0)
    return bench.client.hget(bench.keys("delayed_messages", "q1"), "an id")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x98", b"\x98\xd9", b"\x98\xdb\xff\xff\xff\xffx", b"\x98\xa1x\xa1x\xa1x", b"\x98\xa1x\xa1x\xa1x\xde",
        b"\x98\xa1x\xa1x\xa1x\xde\x00", b"\x98\xa1x\xa1x\xa1x\xc0", b"\x97\xa1x\xa1x\xa1x\x80", b"no message",
        b"\x98\xa1x\xa1x\xa1x\xde\xff\xff" + b"\xa1x\x01" * 3,
    ],
)  # fmt: skip
def test_what_is_no_message_of_ours_stays_as_it_is(bench: Bench, content: bytes) -> None:
    blob = seal("an id", TASK, 0, content)

    assert rescheduled(bench, blob) == blob


def test_what_others_wrote_stays_as_it_is(bench: Bench) -> None:
    blob = msgspec.json.encode({"body": "", "headers": {"id": "an id", "task": TASK}, "properties": {}})

    assert rescheduled(bench, blob) == blob
