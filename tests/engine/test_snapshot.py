"""One look at all there is, and what was counted, on every server the engine promises to run on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from time import time
from typing import Any

import pytest

from taskapp.engine.counters import CountedRun, as_text, read_minutes, read_totals
from taskapp.engine.options import NodeProfile, Options
from taskapp.engine.snapshot import QueueSnapshot, read_snapshot
from taskapp.engine.task_notes import Notes, Step
from taskapp.monitor.scrape import Read, families
from taskapp.transport.codec import SENT_AT_HEADER, pack_task
from tests.engine.bench import Bench, TestNode, leaving
from tests.support import RedisServer, eventually, examples

QUEUES = ("q1", "q2")


def task_message(bench: Bench, age_seconds: float | None, size: int = 10, **headers: Any) -> bytes:
    """A task of the given age and body size."""
    sent_at = {} if age_seconds is None else {SENT_AT_HEADER: bench.now_ms() / 1_000 - age_seconds}
    known = {"id": "an id", "task": "shop.mail", "eta": None, **sent_at, **headers}
    return pack_task(("x" * size, "application/json", "utf-8"), known, 0, None, None, "", "q1")


def look(bench: Bench) -> dict[str, QueueSnapshot]:
    return {queue.name: queue for queue in read_snapshot(bench.link, bench.options.prefix, QUEUES).queues}


def test_nothing_is_there(each_server: RedisServer) -> None:
    bench = Bench(each_server)

    snapshot = read_snapshot(bench.link, "", QUEUES)

    assert abs(snapshot.at - time()) < 60
    assert (snapshot.nodes, snapshot.counts) == ([], {})
    for queue in snapshot.queues:
        assert (queue.depth, queue.oldest_seconds, queue.delayed, queue.next_due_seconds) == (0, None, 0, None)
        assert (queue.parked, queue.dead) == ({}, {})
    bench.close()


@pytest.mark.parametrize("size", [0, 10, 31, 32, 255, 256, 65_535, 65_536, 300_000])
def test_the_age_of_the_oldest_is_read_behind_a_body_of_any_size(bench: Bench, size: int) -> None:
    bench.push_bytes(task_message(bench, 100.0, size), priority=3)
    bench.push_bytes(task_message(bench, 5.0, size), priority=3)

    waiting = look(bench)["q1"].waiting[3]

    assert waiting.depth == 2
    assert waiting.oldest_seconds == pytest.approx(100.0, abs=5.0)


def test_a_message_that_had_to_wait_for_its_time_is_as_old_as_that_time_is_past(bench: Bench) -> None:
    eta = datetime.fromtimestamp(time() - 20, UTC).isoformat()
    bench.push_bytes(task_message(bench, 1_000.0, eta=eta))

    assert look(bench)["q1"].oldest_seconds == pytest.approx(20.0, abs=5.0)


@pytest.mark.parametrize(
    "blob", [b"", b"\x01", b"no message", b"\x01\x00\x00\x00\x00\x00\x02id\x01t\x98\xdb\xff\xff\xff\xffx", bytes(300)]
)
def test_of_what_is_no_message_of_ours_nobody_knows_the_age(bench: Bench, blob: bytes) -> None:
    bench.client.lpush("q1", blob)

    queue = look(bench)["q1"]

    assert (queue.depth, queue.oldest_seconds) == (1, None)


@pytest.mark.parametrize("said", ["soon", float("nan"), True, None, [], -1e300])
def test_a_header_that_says_nonsense_spoils_no_look(bench: Bench, said: Any) -> None:
    bench.push_bytes(task_message(bench, None, **{SENT_AT_HEADER: said, "eta": "tomorrow"}))

    assert look(bench)["q1"].depth == 1


def test_a_key_of_another_kind_in_the_place_of_a_queue_spoils_no_look(bench: Bench) -> None:
    bench.client.set(bench.keys.ready("q1"), "no list")
    bench.client.set(bench.keys.kombu("q1"), "no list")
    bench.push("a", queue="q2")

    assert [queue.depth for queue in look(bench).values()] == [0, 1]


def test_what_is_delayed_parked_and_dead_is_counted(bench: Bench) -> None:
    bench.push("late", due_ms=bench.now_ms() + 30_000)
    bench.push("a", "b", task="shop.new")
    bench.push("c", queue="q2")
    node = bench.node("shop.mail")
    for claimed in node.take(2, ["q1"]):
        node.park(claimed.tag, "shop.new")
    [claimed] = node.take(1, ["q2"])
    node.bury(claimed.tag, "failed", "why")
    node.ends.flush()
    eventually(lambda: node.done() or look(bench)["q2"].dead)

    first, second = look(bench).values()
    assert (first.delayed, first.parked["shop.new"].number) == (1, 2)
    assert first.next_due_seconds == pytest.approx(30, abs=5)
    assert 0 <= first.parked["shop.new"].oldest_seconds < 5
    assert second.dead == {"failed": 1}


def test_a_node_says_what_it_is_until_its_lease_is_gone(each_server: RedisServer) -> None:
    bench = Bench(each_server, Options(lease_seconds=5.0))
    about: dict[str, Any] = {"name": "celery@a", "state": "running", "slots": {"async": 9}, "used": {"async": 2}}
    role = NodeProfile(name="celery@a", about=lambda: {**about, "queues": ["q1"], "load": 0.5, "started_at": 1.0})
    node = TestNode(bench.connect, bench.options, role)
    bench.nodes.append(node)
    bench.push("a", "b")
    node.take(2)

    def only() -> Any:
        [found] = read_snapshot(bench.link, "", QUEUES).nodes
        return found

    seen = only()
    assert (seen.name, seen.state, seen.slots, seen.used, seen.held) == (
        "celery@a",
        "running",
        {"async": 9},
        {"async": 2},
        2,
    )
    assert (seen.queues, seen.load, seen.started_at) == (("q1",), 0.5, 1.0)
    assert 0 < seen.lease_seconds <= 5
    about.update(state="draining", used={})
    node.heartbeat.beat()
    assert (only().state, only().used) == ("draining", {})
    bench.end_leases(node.epoch)
    assert (only().state, only().held) == ("lost", 2)
    bench.reap()
    assert read_snapshot(bench.link, "", QUEUES).nodes == []
    assert read_snapshot(bench.link, "", QUEUES).counts["lost_leases"] == 1
    assert not bench.client.exists(bench.keys("nodes"))
    bench.close()


def test_a_node_that_cannot_say_what_it_is_keeps_its_lease(bench: Bench) -> None:
    def about() -> dict[str, Any]:
        raise RuntimeError("its pool is being made")

    node = TestNode(bench.connect, bench.options, NodeProfile(about=about))
    bench.nodes.append(node)
    node.heartbeat.beat()

    assert node.heartbeat.holds()
    [seen] = read_snapshot(bench.link, "", QUEUES).nodes
    assert (seen.name, seen.state) == ("", "running")


def test_runs_are_counted_in_the_step_that_settles_them_and_stale_ones_are_not(each_server: RedisServer) -> None:
    bench = Bench(each_server)
    bench.push("a", "b", "c")
    first, second = bench.node("shop.mail"), bench.node("shop.mail")
    [a, b, c] = first.take(3)
    run = CountedRun("shop.mail", "completed", 0.003, 0.2)
    for claimed in (a, b):
        settlement = leaving()
        settlement.run = run
        first.settle(claimed.tag, settlement)
    first.ends.flush()
    first.done()
    bench.end_leases(first.epoch)
    second.heartbeat.beat()
    late = leaving()
    late.run = run
    first.settle(c.tag, late)
    first.ends.flush()
    first.done()

    totals = read_totals(bench.link, "")
    assert totals.tasks == {
        ("received", "shop.mail", "q1"): 3, ("completed", "shop.mail", "q1"): 2, ("crashed", "shop.mail", "q1"): 1,
    }  # fmt: skip
    assert (totals.runs["shop.mail"].buckets, totals.waits["q1"].buckets) == ({"0.005": 2}, {"0.5": 2})
    assert totals.runs["shop.mail"].seconds == pytest.approx(0.006)
    assert totals.waits["q1"].seconds == pytest.approx(0.4)
    minutes = read_minutes(bench.link, "", 3)
    assert [minute.at for minute in minutes] == [minutes[0].at + 60 * index for index in range(3)]
    assert sum(minute.tasks.get(("completed", "q1"), 0) for minute in minutes) == 2
    assert sum(minute.waits.get("q1", (0, 0.0))[0] for minute in minutes) == 2
    bench.close()


def test_task_types_beyond_the_bound_share_a_label(bench: Bench) -> None:
    runs = [as_text(CountedRun(f"shop.{number}", "completed")) for number in range(250)]
    steps: list[Step] = [("T", f"shop.{number}", b"") for number in range(250)]
    steps += [("K", "q1", text) for text in runs]
    notes = Notes(bench.link, "", 60)
    for _ in range(2):  # the second time it was written before
        notes.write("a writer", 1, steps, 10)

    tasks = read_totals(bench.link, "").tasks
    assert len(tasks) == 201
    assert tasks["completed", "other", "q1"] == 50


def test_names_no_node_has_announced_share_a_label_and_take_none_away(bench: Bench) -> None:
    names = [f"junk{number}" for number in range(300)] + ["\x1f", 'no"such\n{x="1"}', "a\x1fb\x1fc", "", "é" * 100]
    for name in names:
        bench.push(name, task=name)
    plain = bench.node()
    for claimed in plain.take(len(names)):
        settlement = leaving()
        settlement.run = CountedRun(claimed.envelope.task, "failed")
        plain.settle(claimed.tag, settlement)
    plain.ends.flush()
    plain.done()
    steps: list[Step] = [("K", "q1", as_text(CountedRun(name, "failed"))) for name in names]
    Notes(bench.link, "", 60).write("a writer", 1, steps, 10)
    assert {task for _, task, _ in read_totals(bench.link, "").tasks} == {"other"}

    bench.node("shop.mail")
    Notes(bench.link, "", 60).write("a writer", 2, [("T", "shop.pay", b"")], 10)
    bench.push("a")
    node = bench.node("shop.mail")
    node.take()
    Notes(bench.link, "", 60).write("a writer", 3, [("K", "q1", as_text(CountedRun("shop.pay", "failed")))], 10)

    tasks = read_totals(bench.link, "").tasks
    assert tasks["received", "shop.mail", "q1"] == tasks["failed", "shop.pay", "q1"] == 1
    assert tasks["failed", "other", "q1"] == 2 * len(names)


def test_labels_that_junk_took_in_an_older_release_are_free_again(bench: Bench) -> None:
    bench.client.sadd(bench.keys("total_types"), *(f"junk{number}" for number in range(200)))
    bench.client.hset(bench.keys("totals"), "received\x1fa\x1fb\x1fq1", 1)
    bench.push("a")

    node = bench.node("shop.mail")
    node.take()

    assert read_totals(bench.link, "").tasks == {("received", "shop.mail", "q1"): 1}


@pytest.mark.parametrize("name", ["totals", "total_types", "types", "minute"])
def test_a_key_in_the_place_of_the_totals_stops_no_task(bench: Bench, name: str) -> None:
    minute = int(bench.client.time()[0]) // 60
    for each in (minute, minute + 1):
        bench.client.set(bench.keys(name, str(each)), "something else")
    bench.push("a")
    node = bench.node()
    [claimed] = node.take()
    settlement = leaving()
    settlement.run = CountedRun("shop.mail", "completed")
    node.settle(claimed.tag, settlement)
    node.ends.flush()
    node.done()

    assert not bench.client.exists(bench.keys("leased", node.epoch))


def test_hundreds_of_nodes_that_come_and_go_leave_nothing_behind(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(lease_seconds=60.0)

    def live(number: int) -> TestNode:
        about = {
            "name": f"celery@pod-{number}",
            "slots": {"async": 9},
            "used": {},
            "queues": ["q1"],
            "state": "running",
        }
        role = NodeProfile(name=about["name"], about=lambda: about, types=lambda: {"shop.mail": ""})
        node = TestNode(bench.connect, bench.options, role)
        bench.push(str(number))
        [claimed] = node.take()
        settlement = leaving()
        settlement.run = CountedRun("shop.mail", "completed", 0.003, 0.2)
        node.settle(claimed.tag, settlement)
        node.ends.flush()
        node.done()
        return node

    def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        snapshot = read_snapshot(bench.link, "", QUEUES)
        read = Read(snapshot, read_totals(bench.link, ""), info={})
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in families(read, {}, QUEUES)
            for sample in family.samples
        }

    def keys() -> set[bytes]:
        names: list[bytes] = bench.client.keys("*")
        return {name for name in names if not name.startswith(b"taskapp:totals:") and not name.endswith(b":wake")}

    def lose(node: TestNode) -> None:
        node.die()
        bench.end_leases(node.epoch)
        bench.reap()

    count = examples(1_000)
    lose(live(0))
    before, there = series(), keys()
    for number in range(1, count + 1):
        node = live(number)
        if number % 2:
            node.close()  # it was drained
        else:
            lose(node)

    assert series() == before
    assert keys() == there
    assert read_snapshot(bench.link, "", QUEUES).nodes == []
    totals = read_totals(bench.link, "").tasks
    assert totals["completed", "shop.mail", "q1"] == totals["received", "shop.mail", "q1"] == count + 1
    assert not bench.client.exists(bench.keys("nodes"))
