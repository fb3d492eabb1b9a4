"""Messages whose node dies, or that no node can run: fences, crashes, dead letters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from taskapp.engine.envelope import unseal
from taskapp.engine.producer import Message
from taskapp.engine.settlement import Chord, ChordPart, Result
from taskapp.errors import NotSettled
from tests.engine.bench import Bench, leaving, names
from tests.support import RedisServer, eventually, examples

Make = Callable[..., Bench]


# --- fences -------------------------------------------------------------------------------------------


def test_a_lost_lease_claims_nothing_and_stores_nothing(make_bench: Make) -> None:
    bench = make_bench(lease_seconds=10.0)
    bench.push("a", "b")
    slow, quick = bench.node(), bench.node()
    [held] = slow.take(1)

    bench.end_leases(slow.epoch)
    bench.reap()
    slow.settle(held.tag, leaving(Result("result-a", b"late", 60)))
    slow.done()

    assert bench.client.get("result-a") is None
    assert slow.ask() is None
    assert names(quick.take(5)) == ["a", "b"]


def test_a_run_whose_lease_was_lost_settles_no_message_of_the_lease_after_it(bench: Bench) -> None:
    bench.push("a")
    slow, quick = bench.node(), bench.node()
    [lost] = slow.take(1)
    bench.end_leases(slow.epoch)
    bench.reap()
    assert names(quick.take(1)) == ["a"]
    bench.push("b")
    assert slow.ask() is None
    assert slow.ready()
    [held] = slow.take(1)

    slow.settle(lost.tag)
    slow.done()

    assert bench.client.hkeys(bench.keys("leased", slow.epoch)) == [held.tag.encode()]


def test_what_becomes_of_a_message_after_its_lease_was_lost_changes_nothing(bench: Bench) -> None:
    bench.push("a", "b", "c")
    slow, quick = bench.node(), bench.node()
    a, b, c = slow.take(3)
    bench.end_leases(slow.epoch)
    bench.reap()
    assert names(quick.take(3)) == ["a", "b", "c"]

    slow.give_back([a.tag], "retry")
    slow.park(b.tag, "shop.mail")
    slow.bury(c.tag, "failed", "why")
    slow.done()

    assert quick.take(5) == []
    assert bench.dead.count() == {}
    assert len(bench.client.hgetall(bench.keys("leased", quick.epoch))) == 3


def test_a_claim_that_was_on_its_way_when_the_connection_broke_takes_nothing(bench: Bench) -> None:
    node = bench.node()
    node.take(0)
    bench.client.client_kill_filter(_type="normal", skipme=True)
    while node.pipe.is_open:
        node.read()
    assert node.ready()
    node.done()
    bench.push("a")

    answer = bench.link.run("claim", "", 0, node.epoch, 1, 5, 0, 1, "q1")

    assert answer[6:] == []
    assert names(node.take()) == ["a"]


# --- crashes ------------------------------------------------------------------------------------------


def test_a_message_that_kills_its_node_alone_is_buried_at_the_limit(make_bench: Make) -> None:
    bench = make_bench(crash_limit=3)
    bench.push("killer")
    for crash in range(3):
        node = bench.node(name=f"node {crash}")
        [message] = node.take(5)
        assert (message.envelope.crashes, message.envelope.deliveries) == (crash, crash)
        node.die()
        bench.end_leases(node.epoch)
        bench.reap()

    [letter] = bench.dead.find()
    assert (letter.reason, letter.id, letter.crashes, letter.deliveries) == ("crashed", "killer", 3, 3)
    assert letter.node == node.epoch
    assert bench.told == [("killer", "shop.mail", "crashed", "q1", 1)]
    assert bench.ready() == []


def test_messages_that_die_in_a_crowd_are_never_buried_for_it(make_bench: Make) -> None:
    bench = make_bench(crash_limit=3)
    bench.push("a", "b")
    for crash in range(6):
        node = bench.node()
        taken = node.take(5)
        assert names(taken) == ["a", "b"]
        assert [message.envelope.crashes for message in taken] == [min(crash, 2)] * 2
        node.die()
        bench.end_leases(node.epoch)
        bench.reap()

    assert bench.dead.count() == {}
    assert bench.told == []


def test_a_crash_after_a_crowd_counts_for_the_one_that_is_alone(make_bench: Make) -> None:
    bench = make_bench(crash_limit=3)
    bench.push("a", "b")
    for wanted in (2, 2, 1):
        node = bench.node()
        node.take(wanted)
        node.die()
        bench.end_leases(node.epoch)
        bench.reap()

    assert bench.dead.count() == {("q1", "crashed"): 1}
    assert names(bench.node().take(5)) == ["b"]


@pytest.mark.parametrize("count", [251, 1_001, 30_000])
def test_a_node_with_thousands_of_messages_is_reaped_whole_in_several_beats(bench: Bench, count: int) -> None:
    bench.push(*map(str, range(count)))
    node = bench.node()
    for _ in range(0, count, 1_000):
        node.take(1_000)
    bench.end_leases(node.epoch)

    beats = 0
    while bench.client.exists(bench.keys("leased", node.epoch)):
        bench.reap()
        beats += 1
        assert bench.client.llen(bench.keys.ready("q1")) >= min(count, 100 * beats)

    assert len(bench.ready()) == count
    assert len({unseal(blob).id for blob in bench.ready()}) == count
    # The last of them was not alone when its node died.
    assert {unseal(blob).crashes for blob in bench.ready()} == {1}
    bench.reap()
    assert bench.client.zrange(bench.keys("leases"), 0, -1) == []
    assert not bench.client.exists(bench.keys("node", node.epoch), bench.keys("leased", node.epoch))


# --- dead letters -------------------------------------------------------------------------------------


def test_the_oldest_dead_letters_go_first_when_there_are_too_many(make_bench: Make) -> None:
    bench = make_bench(dead_letters_limit=5)
    expected = [f"id-{number}" for number in range(12)]
    bench.push(*expected)
    node = bench.node()
    for message in node.take(12):
        node.bury(message.tag, "failed", "why")
    node.done()

    assert sorted(letter.id for letter in bench.dead.find()) == sorted(expected[-5:])
    assert bench.dead.count() == {("q1", "failed"): 5}
    assert bench.client.hlen(bench.keys("dead_raw", "q1")) == bench.client.hlen(bench.keys("dead_about", "q1")) == 5
    assert bench.client.hget(bench.keys("counts"), "dropped:failed") == b"7"


def test_each_reason_has_a_limit_of_its_own(make_bench: Make) -> None:
    bench = make_bench(dead_letters_limit=2)
    bench.push(*map(str, range(6)))
    node = bench.node()
    for number, message in enumerate(node.take(6)):
        node.bury(message.tag, "rejected" if number in (3, 4) else "failed", "why")
    node.done()

    assert bench.dead.count() == {("q1", "failed"): 2, ("q1", "rejected"): 2}


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(body=st.binary(max_size=40), start=st.sampled_from([b"", b"\1", b"\2", b"\1\0\0\0\0\0", b"\1\x63\0\0\0\0\0\0"]))
def test_bytes_nobody_can_read_are_buried_and_replayed_as_they_came(bench: Bench, start: bytes, body: bytes) -> None:
    """Whatever the bytes, and also when they begin like a header of ours."""
    blob = start + body
    assume(not is_wrapping(blob))
    bench.client.flushdb()
    bench.push_bytes(blob, priority=5)
    node = bench.node()
    node.bury(node.take()[0].tag, "unreadable", "why")
    node.done()

    [letter] = bench.dead.find()
    assert letter.raw == blob
    assert bench.dead.replay("q1", letter.number)
    [again] = node.take()
    assert again.priority in (5, unseal(blob).priority)
    assert again.envelope.body == unseal(blob).body
    node.die()


def is_wrapping(blob: bytes) -> bool:
    """Return whether ``blob`` begins with the envelope that the engine puts around foreign bytes."""
    return blob[:1] == b"\2" and blob[6:8] == b"\0\0"


# --- tasks that fail without a run's end --------------------------------------------------------------


def bury_by_crash(bench: Bench, name: str) -> None:
    bench.push(name)
    node = bench.node()
    [held] = node.take(1)
    node.die()
    bench.end_leases(node.epoch)
    assert held.envelope.id == name
    bench.reap()


def test_who_was_to_fail_a_buried_task_and_died_is_replaced_after_a_lease(make_bench: Make) -> None:
    bench = make_bench(crash_limit=1, lease_seconds=10.0)
    bury_by_crash(bench, "a")
    assert bench.told == [("a", "shop.mail", "crashed", "q1", 1)]
    plain, worker = bench.node(), bench.node("shop.mail")

    worker.heartbeat.beat()
    assert len(bench.told) == 1
    bench.client.zadd(bench.keys("unreported"), {"1.0:0:q1": bench.now_ms() - 10_000})
    plain.heartbeat.beat()
    assert len(bench.told) == 1
    worker.heartbeat.beat()

    assert bench.told == [("a", "shop.mail", "crashed", "q1", 1)] * 2
    assert bench.dead.settle("q1", 1, leaving(Result("result-a", b"failed", 60)))
    assert not bench.dead.settle("q1", 1, leaving(Result("result-a", b"failed again", 60)))
    assert bench.client.get("result-a") == b"failed"
    assert not bench.client.exists(bench.keys("unreported"))


def test_a_buried_task_that_was_replayed_does_not_fail_any_more(make_bench: Make) -> None:
    bench = make_bench(crash_limit=1)
    bury_by_crash(bench, "a")
    assert bench.dead.replay("q1", 1)

    assert not bench.dead.settle("q1", 1, leaving(Result("result-a", b"failed", 60)))

    assert bench.client.get("result-a") is None


# --- ends that cannot be carried out ------------------------------------------------------------------


def test_a_claim_whose_end_is_refused_is_buried_and_its_task_to_be_failed(bench: Bench) -> None:
    bench.push("a", "b")
    bench.client.set(bench.keys("chord", "spoilt"), "no hash")
    node = bench.node()
    a, b = node.take(2)

    node.settle(a.tag, leaving(Result("result-a", b"done", 60), ChordPart("spoilt", "a", 1, b"", 60)))
    node.settle(b.tag, leaving(Result("result-b", b"done", 60)))
    node.done()

    eventually(lambda: node.done() or bench.told == [("a", "shop.mail", "failed", "q1", 1)])
    assert bench.client.mget("result-a", "result-b") == [None, b"done"]
    assert "WRONGTYPE" in bench.dead.find()[0].error
    assert not bench.client.exists(bench.keys("leased", node.epoch))
    with pytest.raises(NotSettled, match="'q1/1' could not be settled: 'WRONGTYPE"):
        bench.dead.settle("q1", 1, leaving(ChordPart("spoilt", "a", 0, b"", 60)))
    assert bench.dead.settle("q1", 1, leaving())


def test_ends_wait_for_a_server_that_refuses_to_write(each_server: RedisServer) -> None:
    bench = Bench(each_server)
    bench.push("a", "c", "d")
    node = bench.node()
    held, early, unknown = node.take(3)
    bench.client.config_set("min-replicas-to-write", 1)
    node.settle(held.tag, leaving(Result("result-a", b"done", 60), Message("q2", 0, 0, "b", b"{}")))
    node.give_back([early.tag])
    node.park(unknown.tag, "shop.unknown")
    node.done()
    assert bench.client.get("result-a") is None
    assert bench.client.hlen(bench.keys("leased", node.epoch)) == 3

    bench.client.config_set("min-replicas-to-write", 0)

    eventually(lambda: node.done() or bench.client.get("result-a") == b"done")
    eventually(lambda: node.done() or not bench.client.exists(bench.keys("leased", node.epoch)))
    assert len(bench.ready("q1")) == 1
    assert (len(bench.ready("q2")), bench.dead.count(), bench.told) == (1, {}, [])
    assert not bench.client.exists(bench.keys("leased", node.epoch))
    bench.close()


def test_a_stale_end_leaves_no_result_no_follow_up_no_part_and_no_chord(bench: Bench) -> None:
    bench.push("a")
    bench.link.run("chord", "", 0, "two", 1, "about", b"{}", 60)
    slow, quick = bench.node(), bench.node()
    [held] = slow.take(1)
    bench.end_leases(slow.epoch)
    bench.reap()
    before = {key: bench.client.dump(key) for key in bench.client.keys("*") if b"clock" not in key}

    late = leaving(
        Result("result-a", b"late", 60), Message("q2", 0, 0, "b", b"{}"), ChordPart("two", "a", 1, b"", 60),
        Chord("three", 1, b"", b"{}", 60),
    )  # fmt: skip
    late.finished.append("two")
    slow.settle(held.tag, late)
    slow.done()

    assert {key: bench.client.dump(key) for key in bench.client.keys("*") if b"clock" not in key} == before
    assert names(quick.take(5)) == ["a"]


def test_letters_keep_their_order_also_when_time_goes_back_a_little(make_bench: Make) -> None:
    bench = make_bench(dead_letters_limit=2)
    bench.push("a", "b", "c")
    node = bench.node()
    for claimed in node.take(3):
        node.bury(claimed.tag, "failed", "why")
        node.ends.flush()
        node.done()
        bench.set_the_servers_clock(-0.3)

    assert sorted(letter.id for letter in bench.dead.find()) == ["b", "c"]
