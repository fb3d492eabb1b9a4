"""A message is found by its id wherever it is, also while it moves, in steps that hold up nobody."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from taskapp.engine.options import Options
from taskapp.engine.search import Place, Search
from tests.engine.bench import Bench
from tests.support import RedisServer

Make = Callable[..., Bench]
FAR_MS = 3_600_000
ODD_IDS = ["5e4a", "x", "i" * 255, 'say "hi"', "a\nb\x1b[31m", "grüße", "back\\slash/", "taskapp:task", " "]


@pytest.fixture
def search(bench: Bench) -> Search:
    return Search(bench.link, bench.options.prefix, ("q1", "q2"))


def of_others(task_id: str) -> bytes:
    """A message as stock Celery writes it."""
    return json.dumps(
        {
            "body": "W10=", "content-encoding": "utf-8", "content-type": "application/json",
            "headers": {"lang": "py", "task": "shop.mail", "id": task_id, "root_id": "root", "parent_id": None},
            "properties": {"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "q1"}},
        }
    ).encode()  # fmt: skip


# --- every place --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task_id", ODD_IDS)
def test_a_message_is_found_in_every_place_it_can_be(each_server: RedisServer, task_id: str) -> None:
    bench = Bench(each_server)
    search = Search(bench.link, "", ("q1", "q2"))
    others = [f"{task_id}{n}"[-255:] for n in range(30)]
    bench.push(*others, task_id, *others, queue="q2", priority=3)
    seen = [search.find(task_id)]

    node = bench.node()
    held = {message.envelope.id: message.tag for message in node.take(61)}
    seen.append(search.find(task_id))
    node.give_back([held[task_id]], "retry", delay_seconds=3_600)
    node.done()
    seen.append(search.find(task_id))
    assert bench.delayed.cancel(task_id) or True
    bench.push(task_id, queue="q2", task="shop.missing")
    message = next(one for one in node.take(61) if one.envelope.id == task_id)
    node.park(message.tag, "shop.missing")
    node.done()
    seen.append(search.find(task_id))

    assert [found and found.place for found in seen] == [Place.READY, Place.LEASED, Place.DELAYED, Place.PARKED]
    assert {(found.queue, found.envelope.id) for found in seen} == {("q2", task_id)}
    assert [found.priority for found in seen] == [3, 3, 3, 0]
    assert (seen[1].epoch, seen[1].is_lost) == (node.epoch, False)
    assert seen[2].envelope.deliveries == 1
    assert all(abs(seen[n].at * 1_000 - bench.now_ms() - ahead) < 60_000 for n, ahead in ((2, FAR_MS), (3, 0)))
    bench.close()


def test_a_dead_letter_is_found_with_its_reason(bench: Bench, search: Search) -> None:
    bench.push(*map(str, range(300)), "wanted", queue="q2")
    node = bench.node()
    for message in node.take(301):
        node.bury(message.tag, "failed", 'ValueError: it said "id":"17"')
    node.done()

    found = search.find("wanted")

    assert (found.place, found.queue, found.letter.reason) == (Place.DEAD, "q2", "failed")
    assert bench.dead.get("q2", found.letter.number).id == "wanted"
    assert search.find("17").letter.id == "17"


@pytest.mark.parametrize("task_id", ["5e4a", 'say "hi"', "grüße\n"])
def test_messages_of_stock_celery_are_found_by_the_id_in_their_json(bench: Bench, search: Search, task_id: str) -> None:
    bench.push_bytes(of_others("another"))
    bench.push_bytes(of_others(task_id))
    seen = [search.find(task_id)]
    node = bench.node()
    claimed = node.take(2)[1]
    seen.append(search.find(task_id))
    node.give_back([claimed.tag], "retry")
    node.done()
    seen.append(search.find(task_id))
    claimed = node.take(1)[0]
    node.give_back([claimed.tag], "retry", delay_seconds=3_600)
    node.done()
    seen.append(search.find(task_id))
    bench.push_bytes(of_others(task_id), queue="q2")
    bench.client.delete(bench.keys("delayed", "q1"), bench.keys("delayed_messages", "q1"))
    claimed = node.take(1)[0]
    node.bury(claimed.tag, "unreadable", "no")
    node.done()
    seen.append(search.find(task_id))

    assert [found.place for found in seen] == [Place.READY, Place.LEASED, Place.READY, Place.DELAYED, Place.DEAD]
    assert search.find("root") is None


def test_what_nobody_has_is_not_found(bench: Bench, search: Search) -> None:
    bench.push(*map(str, range(2_500)))

    assert search.find("2500") is None
    assert search.find("250") is not None


def test_a_message_of_a_node_that_fell_silent_says_so(bench: Bench, search: Search) -> None:
    bench.push("a")
    node = bench.node()
    node.take(1)
    bench.end_leases(node.epoch)

    assert search.find("a").is_lost


def test_a_key_of_another_type_is_in_nobodys_way(bench: Bench, search: Search) -> None:
    bench.client.set(bench.keys.ready("q1"), "no list")
    bench.client.set(bench.keys("delayed_messages", "q1"), "no hash")
    bench.push("a", queue="q2")

    assert search.find("a").queue == "q2"
    assert search.find("b") is None


# --- size ---------------------------------------------------------------------------------------------


def test_one_call_looks_at_a_bounded_number_of_bytes(bench: Bench, search: Search) -> None:
    big = b"\1\0\0\0\0\0\1x\0" + b"." * 1_000_000
    bench.push("wanted")
    for _ in range(30):
        bench.push_bytes(big)
    bench.client.config_resetstat()

    assert search.find("wanted").place is Place.READY

    stats = bench.client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] >= 8
    assert stats["cmdstat_lrange"]["calls"] <= 40


def test_no_message_of_a_long_list_is_passed_over(bench: Bench, search: Search) -> None:
    bench.push(*(f"{n:05}" for n in range(1_200)), priority=9)

    assert [n for n in range(1_200) if search.find(f"{n:05}") is None] == []


def test_a_node_that_holds_thousands_is_looked_through(bench: Bench, search: Search) -> None:
    bench.push(*(f"{n:05}" for n in range(5_000)))
    node = bench.node()
    assert sum(len(node.take(1_000)) for _ in range(5)) == 5_000

    assert {search.find(f"{n:05}").place for n in range(0, 5_000, 500)} == {Place.LEASED}


def test_a_search_among_many_small_messages_takes_few_round_trips(bench: Bench, search: Search) -> None:
    for start in range(0, 30_000, 5_000):
        bench.push(*(f"{n:05}" for n in range(start, start + 5_000)))
    bench.client.config_resetstat()

    assert search.find("nobody") is None

    # Once from end to end, and three times at the ends, where messages come back to.
    assert bench.client.info("commandstats")["cmdstat_lrange"]["calls"] <= 80


def test_of_delayed_messages_only_those_of_others_are_read(bench: Bench, search: Search) -> None:
    due_ms = bench.now_ms() + FAR_MS
    for start in range(0, 6_000, 1_000):
        bench.push(*(f"{n:05}" for n in range(start, start + 1_000)), due_ms=due_ms)
    bench.client.config_resetstat()

    assert search.find("nobody") is None

    stats = bench.client.info("commandstats")
    assert "cmdstat_hscan" not in stats
    assert stats["cmdstat_zscan"]["calls"] <= 15


def test_dead_letters_are_gone_through_once(bench: Bench) -> None:
    bench.push(*(f"{n:05}" for n in range(3_000)))
    node = bench.node()
    for _ in range(3):
        for message in node.take(1_000):
            node.bury(message.tag, "failed", "no")
        node.done()
    steps: list[int] = []

    assert Search(bench.link, "", ("q1",), steps.append).find("nobody") is None

    assert 3_000 <= steps[-1] <= 3_300


def test_a_letter_buried_behind_the_search_is_found(bench: Bench, search: Search) -> None:
    bench.push("another", "wanted")
    node = bench.node()
    tags = {message.envelope.id: message.tag for message in node.take(2)}
    node.bury(tags["another"], "failed", "no")
    node.done()

    class Burying:
        """Buries what is wanted as soon as the dead letters have been gone through, and hides it till then."""

        def __init__(self) -> None:
            self.is_buried = False

        def run(self, name: str, *args: object) -> object:
            if args[3] == "hash" and not self.is_buried:
                return [b"", 0, 0, []]
            answer = bench.link.run(name, *args)
            if args[3] == "letters":
                node.bury(tags["wanted"], "failed", "no")
                node.done()
                self.is_buried = True
            return answer

        def __getattr__(self, name: str) -> object:
            return getattr(bench.link, name)

    search._link = Burying()

    assert search.find("wanted").letter.id == "wanted"


# --- while it moves -----------------------------------------------------------------------------------


class Mover(threading.Thread):
    """A node that claims and gives back, over and over, and loses nothing."""

    def __init__(self, bench: Bench, seed: int) -> None:
        super().__init__(daemon=True)
        self.node = bench.node()
        self.random = random.Random(seed)
        self.goes_on = True
        self.moved = 0

    def run(self) -> None:
        while self.goes_on:
            tags = [message.tag for message in self.node.take(self.random.randrange(1, 300))]
            self.moved += len(tags)
            time.sleep(self.random.choice((0, 0.001, 0.005)))
            kind, seconds = self.random.choice((("unstarted", 0), ("retry", 0), ("unstarted", 0.003), ("retry", 0.02)))
            self.node.give_back(tags, kind, seconds)
            self.node.done()


@pytest.fixture
def movers(bench: Bench) -> Iterator[list[Mover]]:
    movers = [Mover(bench, seed) for seed in range(3)]
    yield movers
    for mover in movers:
        mover.goes_on = False
    for mover in movers:
        mover.join()


@pytest.mark.quick("40")
@pytest.mark.parametrize("count", [40, 20_000])
def test_nothing_is_missed_while_nodes_claim_and_give_back(
    bench: Bench, search: Search, movers: list[Mover], count: int
) -> None:
    for start in range(0, count, 1_000):
        bench.push(*(f"{n:05}" for n in range(start, min(start + 1_000, count))), priority=count % 10)
    for mover in movers:
        mover.start()
    chosen, ends_at, places = random.Random(7), time.monotonic() + 5, []

    while time.monotonic() < ends_at:
        # Those in front are the ones that move.
        found = search.find(f"{chosen.randrange(chosen.choice((count, min(count, 600)))):05}")
        assert found is not None, f"missed after {len(places)} that were found"
        places.append(found.place)

    if count == 40:  # of many, those that move are seldom met
        assert len(set(places)) >= 2
    assert all(mover.moved > 100 for mover in movers)


def test_a_search_does_not_keep_others_waiting(make_bench: Make) -> None:
    bench = make_bench()
    for _ in range(20):
        bench.push(*(f"{n:06}" for n in range(5_000)))
    bench.client.config_set("slowlog-log-slower-than", 30_000)
    bench.client.slowlog_reset()

    assert Search(bench.link, bench.options.prefix, ("q1",)).find("nobody") is None

    slow = [entry for entry in bench.client.slowlog_get(100) if b"EVALSHA" in entry["command"]]
    assert len(slow) <= 2, slow  # a busy machine


def test_another_deployment_on_the_same_server_is_not_looked_into(make_bench: Make) -> None:
    bench = make_bench(prefix="shop:")
    assert isinstance(bench.options, Options)
    bench.push("a")

    assert Search(bench.link, "shop:", ("q1",)).find("a") is not None
    assert Search(bench.link, "", ("q1",)).find("a") is None
