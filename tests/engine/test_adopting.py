"""What clients of stock Celery, and older versions of taskapp, push to kombu's lists: nodes adopt it, in order."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pytest

from taskapp.engine.envelope import seal
from taskapp.engine.search import Place, Search
from taskapp.engine.snapshot import read_snapshot
from taskapp.queues import PRIORITIES
from tests.engine.bench import TASK, Bench, names
from tests.support import RedisServer


def push_as_stock(bench: Bench, *blobs: str | bytes, queue: str = "q1", priority: int = 0) -> None:
    bench.client.lpush(bench.keys.kombu(queue, priority), *blobs)


def left(bench: Bench, queue: str = "q1", priority: int = 0) -> int:
    return int(bench.client.llen(bench.keys.kombu(queue, priority)))


def test_messages_keep_their_order_and_their_priority(each_server: RedisServer) -> None:
    bench = Bench(each_server)
    push_as_stock(bench, "low 1", "low 2", "low 3")
    for priority in PRIORITIES[1:]:
        push_as_stock(bench, f"{priority} 1", f"{priority} 2", priority=priority)
    push_as_stock(bench, "other", queue="q2", priority=9)

    taken = bench.node().take(100)

    levels = [(priority, f"{priority} {number}") for priority in reversed(PRIORITIES[1:]) for number in (1, 2)]
    wanted = [*levels, (0, "low 1"), (0, "low 2"), (0, "low 3"), (9, "other")]
    assert [(each.priority, each.envelope.body.decode()) for each in taken] == wanted
    bench.close()


def test_they_stand_behind_what_is_ready(bench: Bench) -> None:
    bench.push("ours 1")
    push_as_stock(bench, "stock 1")
    bench.push("ours 2")

    assert names(bench.node().take(5)) == ["ours 1", "ours 2", "stock 1"]


def test_messages_that_an_older_version_left_are_taken_as_they_are(bench: Bench) -> None:
    push_as_stock(bench, seal("a", TASK, 7, b"body"), priority=7)

    [taken] = bench.node().take(5)

    assert (taken.envelope.id, taken.envelope.task, taken.priority) == ("a", TASK, 7)


def test_a_node_adopts_no_more_than_it_wants_so_that_stock_workers_get_their_share(bench: Bench) -> None:
    push_as_stock(bench, *(str(number) for number in range(10)))

    assert names(bench.node().take(3)) == ["0", "1", "2"]
    assert (left(bench), bench.ready()) == (7, [])


def test_a_backlog_is_adopted_claim_by_claim(bench: Bench) -> None:
    push_as_stock(bench, *(str(number) for number in range(10)))
    node = bench.node()

    assert [names(node.take(3)) for _ in range(4)] == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"], ["9"]]


def test_one_step_adopts_a_bounded_number_of_bytes(bench: Bench) -> None:
    push_as_stock(bench, *[b"%d" % number + bytes(300_000) for number in range(10)])

    bench.link.run("adopt", "", 0, 100, 0, "q1")

    assert (left(bench), len(bench.ready())) == (8, 2)


def test_a_busy_node_does_not_look_with_each_claim(bench: Bench) -> None:
    node = bench.node()
    node.take(1)
    assert node.adopt_at > monotonic() - 1
    node.adopt_at = monotonic() + 1_000
    push_as_stock(bench, "stock")

    assert node.take(1) == []
    node.adopt_at = 0.0
    assert names(node.take(1)) == ["stock"]


@pytest.mark.parametrize("spoil", [lambda client, key: client.set(key, "x"), lambda client, key: client.sadd(key, "x")])
def test_a_key_of_another_type_is_left_alone(bench: Bench, spoil: Callable[..., None]) -> None:
    spoil(bench.client, "q1")
    before = bench.client.dump("q1")
    push_as_stock(bench, "behind it", priority=3)
    bench.push("ours")
    node = bench.node()

    assert names(node.take(5)) == ["behind it", "ours"]
    assert read_snapshot(bench.link, "", ("q1",)).queues[0].depth == 0
    assert bench.link.run("empty", "", 0, "q1", "0") == [0, b"0"]
    assert bench.client.dump("q1") == before


def test_what_cannot_be_put_behind_a_key_of_another_type_stays_until_that_is_set_aside(bench: Bench) -> None:
    bench.client.set(bench.keys.ready("q1"), "no list")
    push_as_stock(bench, "stock")
    node = bench.node()

    first = node.ask(1)
    node.adopt_at = 0.0

    assert first is not None
    assert (first.set_aside, first.messages) == (1, [])
    assert names(node.take(1)) == ["stock"]


def test_messages_not_adopted_yet_are_counted_found_and_purged(bench: Bench) -> None:
    bench.push("a")
    push_as_stock(bench, seal("b", TASK, 0, b""))
    push_as_stock(bench, '{"headers": {"id": "c"}}', priority=6)

    queue = read_snapshot(bench.link, "", ("q1",)).queues[0]
    assert {priority: queue.waiting[priority].depth for priority in (0, 6)} == {0: 2, 6: 1}
    found = Search(bench.link, "", ("q1",))
    places = [(each.place, each.priority) for name in "abc" if (each := found.find(name)) is not None]
    assert places == [(Place.READY, 0), (Place.READY, 0), (Place.READY, 6)]
    assert bench.link.run("empty", "", 0, "q1", "0") == [3, b"0"]
    assert (left(bench), left(bench, priority=6), bench.ready()) == (0, 0, [])
