"""What single operations promise: order, fairness, delay, and a place for everything that is in the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taskapp.engine.envelope import seal, unseal
from taskapp.engine.options import Options
from taskapp.engine.settlement import Result
from taskapp.errors import BrokerFull
from tests.engine.bench import Bench, leaving, names
from tests.support import RedisServer, eventually

FAR_MS = 3_600_000
Make = Callable[..., Bench]


# --- order --------------------------------------------------------------------------------------------


def test_queues_go_in_order_and_inside_each_priority_nine_goes_first(bench: Bench) -> None:
    for queue in ("q2", "q1"):
        for priority in (0, 9, 4):
            bench.push(f"{queue} {priority} a", f"{queue} {priority} b", queue=queue, priority=priority)

    taken = names(bench.node().take(12))

    levels = [f"{queue} {priority}" for queue in ("q1", "q2") for priority in (9, 4, 0)]
    assert taken == [f"{level} {which}" for level in levels for which in "ab"]


def test_a_busy_queue_does_not_starve_a_lower_one(make_bench: Make) -> None:
    bench = make_bench(starvation_guard=4)
    bench.push("patient", queue="q2")
    bench.push(*map(str, range(10)), queue="q1", priority=9)
    node = bench.node()

    taken = [names(node.take())[0] for _ in range(4)]

    assert taken == ["0", "1", "2", "patient"]


def test_without_a_guard_the_order_is_strict(make_bench: Make) -> None:
    bench = make_bench(starvation_guard=0)
    bench.push("patient", queue="q2")
    bench.push(*map(str, range(40)), queue="q1")
    node = bench.node()

    taken = [names(node.take())[0] for _ in range(41)]

    assert taken == [*map(str, range(40)), "patient"]


def test_messages_given_back_unstarted_are_the_first_again_in_their_order(bench: Bench) -> None:
    bench.push("a", "b", "c", "d")
    node = bench.node()
    tags = [message.tag for message in node.take(3)]

    node.give_back(tags)
    node.done()

    again = node.take(4)
    assert names(again) == ["a", "b", "c", "d"]
    assert all(message.envelope.deliveries == 0 for message in again)


def test_more_than_a_thousand_messages_given_back_keep_their_order(bench: Bench) -> None:
    expected = [str(number) for number in range(2_100)]
    bench.push(*expected)
    node = bench.node()
    taken = node.take(1_000) + node.take(1_000) + node.take(100)

    node.give_back([message.tag for message in taken])
    node.done()

    assert names(node.take(1_000) + node.take(1_000) + node.take(100)) == expected


# --- delay --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("give_back_again", [False, True], ids=["pushed delayed", "given back delayed"])
def test_a_message_of_others_keeps_its_priority_through_a_delay(bench: Bench, give_back_again: bool) -> None:
    bench.push_bytes(b'{"stock": 1}', priority=9, due_ms=0 if give_back_again else bench.now_ms() + 30)
    node = bench.node()
    if give_back_again:
        node.give_back([node.take()[0].tag], delay_seconds=0.03)
        node.done()
    bench.push("ordinary", priority=5)
    bench.set_the_servers_clock(0.5)

    first = node.take()[0]

    assert (first.envelope.body, first.priority) == (b'{"stock": 1}', 9)


def test_twelve_hundred_messages_due_at_once_come_in_the_order_they_are_due(bench: Bench) -> None:
    start = bench.now_ms() - 2_000
    for number in range(1_200):
        bench.client.zadd(bench.keys("delayed", "q1"), {str(number): start + number})
        bench.client.hset(bench.keys("delayed_messages", "q1"), str(number), seal("", "", 0, str(number).encode()))
    node = bench.node()

    node.take(0)
    promoted_at_once = len(bench.ready())
    taken = [name for _ in range(6) for name in names(node.take(1_000))]

    assert promoted_at_once == 200
    assert taken == [str(number) for number in range(1_200)]


def test_a_hundred_thousand_delayed_messages_cost_a_claim_nothing(bench: Bench) -> None:
    node = bench.node()
    bench.push("warm")
    node.take()
    alone = cost_of_claims_us(bench, 300)
    due_ms = bench.now_ms() + FAR_MS
    for start in range(0, 100_000, 1_000):
        bench.push(*(f"id-{number}" for number in range(start, start + 1_000)), due_ms=due_ms + start)

    crowded = cost_of_claims_us(bench, 300)

    assert bench.delayed.count()["q1"] == 100_000
    assert crowded < 2 * alone + 30, f"{crowded:.0f} µs per claim with 100,000 delayed messages, {alone:.0f} µs alone"


def cost_of_claims_us(bench: Bench, claims: int) -> float:
    """Return what one claim that finds nothing costs the server."""
    node = bench.nodes[0]
    bench.client.config_resetstat()
    for _ in range(claims):
        assert node.take() == []
    return bench.client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]


def test_a_delayed_message_can_be_found_moved_and_cancelled_by_its_id(bench: Bench) -> None:
    bench.push("a", "b", due_ms=bench.now_ms() + FAR_MS, priority=3, queue="q2")

    assert [(each.id, each.task, each.queue, each.priority) for each in bench.delayed.soonest("q2")] == [
        ("a", "shop.mail", "q2", 3),
        ("b", "shop.mail", "q2", 3),
    ]
    assert bench.delayed.reschedule("b", 60)
    assert [each.id for each in bench.delayed.soonest("q2")] == ["b", "a"]
    assert bench.delayed.cancel("b")
    assert not bench.delayed.cancel("b")
    assert not bench.delayed.reschedule("b", 60)
    assert bench.delayed.count() == {"q1": 0, "q2": 1}


# --- keys of a wrong type ---------------------------------------------------------------------------


def test_a_key_of_another_type_in_the_place_of_a_queue_is_renamed_and_kept(each_server: RedisServer) -> None:
    bench = Bench(each_server)
    bench.client.set(bench.keys.ready("q1"), "not ours")
    bench.client.hset(bench.keys.ready("q1", 9), "not", "ours either")
    node = bench.node()

    claim = node.ask(5)
    bench.push("a", priority=9)

    assert claim is not None
    assert claim.set_aside == 2
    aside = bench.client.keys("taskapp:{q1}:aside:*")
    assert sorted(bench.client.type(key) for key in aside) == [b"hash", b"string"]
    assert names(node.take(5)) == ["a"]
    bench.close()


def test_a_push_finds_its_way_around_a_key_of_another_type(bench: Bench) -> None:
    bench.client.set(bench.keys.ready("q1"), "not ours")

    bench.push("a", "b")

    assert names(bench.node().take(5)) == ["a", "b"]
    assert bench.client.get(bench.client.keys("taskapp:{q1}:aside:*")[0]) == b"not ours"


# --- the end of a node --------------------------------------------------------------------------------


def test_a_node_that_closes_gives_back_what_it_holds_and_leaves_nothing_behind(bench: Bench) -> None:
    bench.push(*map(str, range(1_500)))
    node = bench.node("shop.mail")
    node.take(1_000)
    node.take(500)

    node.close(("q1",))

    left = [unseal(blob) for blob in bench.ready()]
    assert sorted(int(each.id) for each in left) == list(range(1_500))
    assert all(each.deliveries == 0 for each in left)
    assert bench.client.keys("taskapp:node:*") == bench.client.keys("taskapp:leased:*") == []
    assert bench.client.zcard(bench.keys("leases")) == 0
    assert bench.client.llen(bench.keys("wake", "q1")) == 1


def test_work_that_was_done_while_the_connection_was_broken_is_settled_when_the_node_closes(bench: Bench) -> None:
    bench.push("done")
    node = bench.node()
    [message] = node.take()
    bench.client.client_kill_filter(_type="normal", skipme=True)
    while node.pipe.is_open:
        node.read()

    node.settle(message.tag, leaving(Result("result", b"42", 60)))
    node.close(("q1",))

    assert bench.client.get("result") == b"42"
    assert bench.ready() == []


# --- a full server ------------------------------------------------------------------------------------


def test_a_full_server_refuses_pushes_and_lets_nodes_go_on(each_server: RedisServer) -> None:
    bench = Bench(each_server, Options(lease_seconds=1.0))
    bench.push(*map(str, range(8)))
    node = bench.node("shop.mail", name="first")
    dead, back, parked, buried, done, *_ = node.take(6)
    bench.client.config_set("maxmemory-policy", "noeviction")
    bench.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerFull) as caught:
            bench.push("too much", "far too much")
        assert caught.value.task_ids == ["too much", "far too much"]
        assert node.heartbeat.beat() > 0
        assert not node.heartbeat.lost
        node.settle(done.tag, leaving(Result("result", b"42", 60)))
        node.give_back([back.tag], "retry")
        node.give_back([dead.tag], "retry", delay_seconds=60)
        node.park(parked.tag, "video")
        node.bury(buried.tag, "failed", "why")
        node.done()
        other = bench.node("shop.mail", name="started on a full server")
        assert names(other.take(5)) == [back.envelope.body.decode(), "6", "7"]
        other.close(("q1",))
        node.die()
        eventually(lambda: bench.reap() or len(bench.ready()) == 4)
    finally:
        bench.client.config_set("maxmemory", 0)

    assert bench.client.get("result") == b"42"
    assert bench.delayed.count()["q1"] == 1
    assert bench.dead.count() == {("q1", "failed"): 1}
    assert bench.client.llen(bench.keys("parked_messages", "q1", "video")) == 1
    bench.close()
