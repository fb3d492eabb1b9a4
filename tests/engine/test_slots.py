"""Claims that fit a node's slots: what it has no room for stays where it is, in its order, for others."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from taskapp.engine.claims import Claim
from taskapp.engine.options import NodeProfile
from taskapp.engine.slots import PrefetchEstimator, SingleKindSlots
from tests.engine.bench import Bench, TestNode

KINDS = {"fetch": "async", "mail": "thread", "render": "process"}


@pytest.fixture
def node(bench: Bench) -> TestNode:
    made = TestNode(bench.connect, bench.options, NodeProfile(name="mixed", types=lambda: KINDS))
    bench.nodes.append(made)
    return made


def claim(node: TestNode, **room: int) -> Claim:
    answers: list[Claim | None] = []
    node.claim(["q1", "q2"], sum(room.values()), answers.append, room)
    node.done()
    assert answers[0] is not None
    return answers[0]


def names(found: Claim) -> list[str]:
    return [message.envelope.id for message in found.messages]


def mixed(bench: Bench, tasks: Mapping[str, str], queue: str = "q1", priority: int = 0) -> None:
    for name, task in tasks.items():
        bench.push(name, task=task, queue=queue, priority=priority)


def test_a_claim_takes_no_more_of_a_kind_than_there_is_room_for(bench: Bench, node: TestNode) -> None:
    mixed(bench, {"m1": "mail", "m2": "mail", "f1": "fetch", "m3": "mail", "f2": "fetch", "r1": "render"})

    found = claim(node, **{"async": 9, "thread": 2, "process": 0})

    assert names(found) == ["m1", "m2", "f1", "f2"]
    assert found.passed_over
    assert [blob[-2:] for blob in bench.ready("q1")] == [b"m3", b"r1"]


def test_what_was_passed_over_is_the_first_again_for_whoever_has_room(bench: Bench, node: TestNode) -> None:
    mixed(bench, {f"m{number}": "mail" for number in range(5)} | {"f": "fetch"})
    assert names(claim(node, **{"async": 3, "thread": 0, "process": 0})) == ["f"]

    other = bench.node(*KINDS)
    assert [message.envelope.id for message in other.take(9)] == [f"m{number}" for number in range(5)]


def test_priorities_and_queues_keep_their_order_by_kind(bench: Bench, node: TestNode) -> None:
    mixed(bench, {"low mail": "mail", "low fetch": "fetch"}, queue="q2")
    mixed(bench, {"mail 0": "mail", "fetch 0": "fetch"})
    mixed(bench, {"mail 9": "mail", "fetch 9": "fetch"}, priority=9)

    found = claim(node, **{"async": 9, "thread": 1, "process": 0})

    assert names(found) == ["mail 9", "fetch 9", "fetch 0", "low fetch"]


def test_a_claim_with_room_for_all_passes_nothing_over(bench: Bench, node: TestNode) -> None:
    mixed(bench, {"m": "mail", "f": "fetch", "r": "render"})
    found = claim(node, **{"async": 5, "thread": 5, "process": 5})
    assert (names(found), found.passed_over) == (["m", "f", "r"], False)


def test_who_passes_messages_over_wakes_the_others(bench: Bench, node: TestNode) -> None:
    mixed(bench, {"m": "mail"})
    bench.client.delete(bench.keys("wake", "q1"))
    assert names(claim(node, **{"async": 5, "thread": 0, "process": 0})) == []
    assert bench.client.llen(bench.keys("wake", "q1")) == 1


def test_a_claim_looks_past_a_bounded_number_of_messages(bench: Bench, node: TestNode) -> None:
    bench.push(*[f"m{number}" for number in range(1_000)], task="mail")
    bench.push("f", task="fetch")
    assert names(claim(node, **{"async": 5, "thread": 0, "process": 0})) == []
    assert [blob.rpartition(b"m")[2] for blob in bench.ready("q1")[:1_000]] == [b"%d" % n for n in range(1_000)]


def test_a_type_the_node_lacks_takes_no_slot_and_is_parked(bench: Bench, node: TestNode) -> None:
    mixed(bench, {"x": "unheard of", "m": "mail"})
    found = claim(node, **{"async": 1, "thread": 1, "process": 1})
    assert names(found) == ["x", "m"]
    assert not node.has("unheard of")


def test_parked_messages_wait_for_room_too(bench: Bench, node: TestNode) -> None:
    lacking = bench.node("other")
    mixed(bench, {"m1": "mail", "m2": "mail"})
    for message in lacking.take(2):
        lacking.park(message.tag, "mail")
    lacking.done()

    full = claim(node, **{"async": 1, "thread": 0, "process": 0})
    assert (names(full), full.passed_over) == ([], True)
    one = claim(node, **{"async": 9, "thread": 1, "process": 0})
    assert (names(one), one.passed_over) == (["m1"], True)
    other = claim(node, **{"async": 9, "thread": 1, "process": 0})
    assert (names(other), other.passed_over) == (["m2"], False)


def test_a_message_of_others_needs_no_kind(bench: Bench, node: TestNode) -> None:
    bench.push_bytes(b'{"stock": 1}')
    assert len(claim(node, **{"async": 1, "thread": 0, "process": 0}).messages) == 1


def test_short_tasks_are_claimed_ahead_and_long_ones_are_not() -> None:
    pace = PrefetchEstimator()
    assert pace.ahead() == 0
    for _ in range(100):
        pace.ran(0.0001)
    assert pace.ahead() == 64
    pace.ran(60.0)
    assert pace.ahead() == 0


def test_slots_that_are_alike_want_what_is_free_and_a_little_more() -> None:
    free = 2
    slots = SingleKindSlots(lambda: free)
    assert slots.wanted("", 0) == 2
    for _ in range(100):
        slots.measured.ran(0.001)
    ahead = slots.measured.ahead()
    assert slots.wanted("", 0) == 2 + ahead
    assert slots.wanted("", ahead) == 0
