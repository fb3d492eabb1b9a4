"""Numbers of limits while nodes run, and what people see of those that wait."""

from __future__ import annotations

import msgspec
import pytest

from taskapp.engine.envelope import seal, unseal
from taskapp.engine.limit_numbers import BlockedLane, LimitNumbers, LimitsAdmin
from taskapp.engine.limits import Concurrency, Limits, Rate, Unique, packed
from taskapp.engine.options import NodeProfile
from taskapp.engine.search import Gate, Place, Search
from taskapp.engine.snapshot import LimitRef, asks_for_ready, read_snapshot, ready_in
from taskapp.transport.codec import READY_AT_HEADER, pack_task
from tests.engine.bench import Bench, TestNode, names

HOUR_MS = 3_600_000


@pytest.fixture
def admin(bench: Bench) -> LimitsAdmin:
    return LimitsAdmin(bench.link, bench.options.prefix)


def rated(key: str = "", fair_key: str = "") -> Limits:
    return Limits(fair_key, (Rate("mail", key, 1, HOUR_MS, 1),))


def start(bench: Bench, limits: dict[str, dict[str, float]]) -> TestNode:
    node = TestNode(bench.connect, bench.options, NodeProfile(limits=lambda: limits))
    bench.nodes.append(node)
    return node


def test_the_node_that_started_last_declares_and_what_is_set_wins(bench: Bench, admin: LimitsAdmin) -> None:
    start(bench, {"mail": {"most": 5, "limit": 2}, "video": {"most": 1}})
    start(bench, {"mail": {"most": 7}})
    admin.set_limit("mail", {"burst": 3})

    assert admin.read_limits() == {
        "mail": LimitNumbers("mail", {"most": 7}, {"burst": 3}),
        "video": LimitNumbers("video", {"most": 1}, {}),
    }
    admin.clear_limit("mail")
    assert admin.read_limits()["mail"].set == {}


def test_a_declared_number_wins_over_that_of_a_message(bench: Bench) -> None:
    bench.submit(*"abcd", limits=Limits(slots=(Concurrency("mail", "", 1),)))
    node = start(bench, {"mail": {"most": 3}})

    assert len(node.take(9)) == 3


@pytest.mark.parametrize("numbers", [{"limit": 0}, {"most": -1}, {"burst": float("nan")}, {"rate": 1}, {"limit": True}])
def test_a_number_that_limits_nothing_is_refused(admin: LimitsAdmin, numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"above 0|has no number"):
        admin.set_limit("mail", numbers)
    with pytest.raises(ValueError, match="above 0"):
        admin.set_weight("x", -1)
    with pytest.raises(ValueError, match="0 seconds or more"):
        admin.pause("mail", "", -1)


def test_weights_are_changed_while_nodes_run(bench: Bench, admin: LimitsAdmin) -> None:
    for tenant in "ab":
        bench.submit(*(f"{tenant}{number}" for number in range(40)), limits=Limits(tenant))
    node = bench.node()
    admin.set_weight("a", 3)
    assert [name[0] for name in names(node.take(8))].count("a") == 6

    admin.clear_weight("a")

    assert admin.read_weights() == {}
    assert [name[0] for name in names(node.take(8))].count("a") in (3, 4, 5)


def test_the_lanes_that_wait_tell_for_what_and_until_when(bench: Bench, admin: LimitsAdmin) -> None:
    bench.submit("r1", "r2", "r3", limits=rated("x", "tenant"), priority=4)
    bench.submit("s1", "s2", limits=Limits(slots=(Concurrency("own", "y", 1),)))
    bench.submit("u1", limits=Limits(unique=Unique("mail\x1fk", on_duplicate="latest")))
    node = bench.node()
    node.take(9)
    bench.submit("u2", limits=Limits(unique=Unique("mail\x1fk", on_duplicate="latest")))
    node.take(9)

    found = {each.gate: each for each in admin.blocked("q1")}

    rate, slots, unique = Gate("rate", "mail", "x"), Gate("slots", "own", "y"), Gate("unique", "", "mail\x1fk")
    assert found.keys() == {rate, slots, unique}
    assert found[rate][:5] == ("q1", 4, "tenant", rate, 2)
    opens_at = found[rate].opens_at
    assert opens_at is not None
    assert opens_at * 1_000 - bench.now_ms() == pytest.approx(HOUR_MS, abs=5_000)
    assert found[slots] == BlockedLane("q1", 0, "", slots, 1, None)
    [queue] = [each for each in read_snapshot(bench.link, "", ("q1",)).queues if each.name == "q1"]
    assert queue.blocked_by == {LimitRef("rate", "mail"): 2, LimitRef("slots", "own"): 1, LimitRef("unique", "mail"): 1}


def test_a_blocked_task_is_found_with_what_it_waits_for(bench: Bench) -> None:
    bench.submit("a", "b", "c", limits=rated("x"))
    bench.submit("d", limits=rated("y"), due_ms=bench.now_ms() + HOUR_MS)
    bench.submit("e", limits=rated("z"))
    node = bench.node()
    search = Search(bench.link, bench.options.prefix, ("q1",))
    assert search.find("b").place is Place.READY  # type: ignore[union-attr]
    node.take(1)
    node.take(1)
    node.take(1)

    places = {name: search.find(name) for name in "abcd"}

    assert {name: found.place for name, found in places.items() if found} == {
        "a": Place.LEASED, "b": Place.BLOCKED, "c": Place.BLOCKED, "d": Place.DELAYED,
    }  # fmt: skip
    blocked = places["b"]
    assert blocked is not None
    assert blocked.gate == Gate("rate", "mail", "x")
    assert blocked.at * 1_000 - bench.now_ms() == pytest.approx(HOUR_MS, abs=5_000)


def ready_at_of(blob_body: bytes) -> float | None:
    headers = msgspec.msgpack.decode(blob_body)[3]
    found = headers.get(READY_AT_HEADER)
    return None if found is None else float(found)


def test_a_task_has_waited_for_a_node_only_since_its_gate_opened(bench: Bench) -> None:
    limits = Limits("", (Rate("mail", "", 1, 100_000, 1),))
    messages = []
    for name in ("first", "blocked", "behind"):
        body = unseal(
            pack_task((name, "application/json", "utf-8"), {"id": name, "task": "shop.mail"}, 0, name, None, "", "")
        ).body
        messages.append(bench.limited(name, limits)._replace(blob=seal(name, "shop.mail", 0, body, packed(limits))))
    bench.producer.push(messages)
    node = bench.node()
    [first] = node.take(3)
    node.take(3)
    bench.let_time_pass(101)

    opened_at = bench.now_ms() / 1_000
    [second] = node.take(3)

    assert second.envelope.id == "blocked"
    assert ready_at_of(first.envelope.body) is None
    assert ready_at_of(second.envelope.body) == pytest.approx(opened_at, abs=2)


def test_blocked_tasks_are_counted_apart_and_ready_ones_in_the_depth(bench: Bench) -> None:
    bench.submit("a", "b", "c", limits=rated("x"), priority=3)
    bench.submit("f1", "f2", limits=Limits("tenant"), priority=3)
    bench.submit("d", limits=rated("y"), due_ms=bench.now_ms() + HOUR_MS)
    bench.push("plain", priority=3)

    def seen() -> tuple[int, int, int]:
        [queue] = [each for each in read_snapshot(bench.link, "", ("q1",)).queues if each.name == "q1"]
        assert queue.waiting[3].depth == queue.depth
        assert ready_in(bench.link.pipeline(asks_for_ready(bench.keys, "q1"))) == queue.depth
        return queue.depth, queue.blocked, queue.delayed

    assert seen() == (6, 0, 1)
    bench.submit("more", limits=rated("x"), priority=3)
    node = bench.node()
    held = node.take(9)
    assert sorted(names(held)) == ["a", "f1", "f2", "plain"]
    assert seen() == (0, 3, 1)
    node.give_back([each.tag for each in held])
    node.done()
    assert seen() == (3, 4, 1)
