"""What one script does is bounded, however much there is: counted in commands, not in time."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import taskapp
from taskapp.engine.envelope import seal, unseal
from taskapp.engine.snapshot import read_snapshot
from taskapp.engine.suspects import Suspects
from tests.engine.bench import Bench

MOST_COMMANDS = 1_200
"""Of one script; each takes a microsecond or two."""
LONG_AGO_MS = 4_000_000

WHOLE_KEY = re.compile(
    r"""redis\.p?call\('(?:
        (?P<whole>HKEYS|HVALS|HGETALL|HRANDFIELD|SMEMBERS|SDIFF|SINTER|SUNION|SORT|KEYS|DEL|ZREMRANGEBY\w+)',\s*
        | (?P<range>[LZ]\w*RANGE(?:BY\w+)?)',(?=[^\n]*(?:,\ 0,\ -1\b|'-inf'(?![^\n]*'LIMIT')))\s*
        | (?P<search>LPOS|LREM)',(?![^\n]*'MAXLEN')\s*
    )(?P<key>[\w.]+(?:\[\d\])?)""",
    re.VERBOSE,
)
"""A command that takes as long as its key is large."""
BOUNDED = {
    "beat DEL node": "the task types of one node",
    "beat HKEYS key_node": "the same",
    "beat SMEMBERS key_queues": "queues",
    "beat ZRANGE key_leases": "nodes",
    "budgets HGETALL key": "the slices of one period",
    "circuits ZREMRANGEBYSCORE key": "as many failures as open a circuit",
    "claim HKEYS key": "100 task types at most",
    "claim HKEYS key_node": "the task types of one node",
    "close DEL key_node": "the same",
    "due HGETALL key_schedule": "the fields of one schedule",
    "find LRANGE parked": "10 messages at most",
    "look HGETALL key": "100 task types at most",
    "look HGETALL key_counts": "some names of the engine's own",
    "look HGETALL key_limited": "limits that block something in one queue",
    "merge LREM KEYS[1]": "one that lies less than 10,000 deep",
    "note DEL key_task_log": "the log lines kept of a task",
    "prelude HKEYS leased": "1,000 messages at most",
    "prelude LRANGE key_schedule_runs": "the runs kept of a schedule",
    "prelude SDIFF key_total_types": "200 task types at most",
    "prelude ZREMRANGEBYRANK key": "what a tick puts in is taken out",
    "recover HKEYS leased": "1,000 messages at most",
    "refuse_tick LREM ticks": "one that lies less than 1,000 deep",
    "unschedule DEL key_schedule": "the fields and the runs kept of a schedule",
}
"""Those there are, and what bounds their key."""


def test_a_command_that_goes_through_a_whole_key_is_used_only_where_that_is_small() -> None:
    scripts = Path(taskapp.__file__).parent.glob("*/lua/*.lua")
    found = {
        f"{script.stem} {match['whole'] or match['range'] or match['search']} {match['key']}"
        for script in scripts
        for match in WHOLE_KEY.finditer(script.read_text())
    }

    assert found == set(BOUNDED)


@contextmanager
def bounded(bench: Bench, scripts: int = 1) -> Iterator[None]:
    """Fail if what is done inside takes more than its share of commands."""
    bench.client.config_resetstat()
    yield
    stats = bench.client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}
    assert sum(calls.values()) <= MOST_COMMANDS * scripts, calls


def park_types(bench: Bench, count: int, since_ms: int, each: int = 1, first: int = 0) -> None:
    """Park messages of task types that no node has."""
    pipeline = bench.client.pipeline(transaction=False)
    for number in range(first, first + count):
        task = f"shop.v{number}"
        pipeline.hset(bench.keys("parked", "q1"), task, since_ms)
        for copy in range(each):
            blob = struct.pack(">d", since_ms) + seal(f"{number}-{copy}", task, 0, b"")
            pipeline.lpush(bench.keys("parked_messages", "q1", task), blob)
    pipeline.sadd(bench.keys("queues"), "q1")
    pipeline.execute()


def sweep(bench: Bench, done: Callable[[], bool]) -> int:
    """Beat until ``done``, each beat within its bounds; report buried messages as a node does."""
    for beats in range(1, 10_000):
        with bounded(bench):
            bench.reap()
        bench.client.delete(bench.keys("unreported"))
        if done():
            return beats
    raise AssertionError("it does not come to its end")


def test_thousands_of_types_that_no_node_has_are_buried_in_steps(bench: Bench) -> None:
    living = [bench.node("shop.kept", f"type.{n}", name=f"node-{n}") for n in range(60)]
    park_types(bench, 3_000, bench.now_ms() - LONG_AGO_MS)
    bench.client.hset(bench.keys("parked", "q1"), "shop.kept", bench.now_ms() - LONG_AGO_MS)
    old = struct.pack(">d", bench.now_ms() - LONG_AGO_MS) + seal("kept", "shop.kept", 0, b"")
    bench.client.lpush(bench.keys("parked_messages", "q1", "shop.kept"), old)

    beats = sweep(bench, lambda: bench.client.hlen(bench.keys("parked", "q1")) == 1)

    assert beats >= 30
    assert bench.dead.count() == {("q1", "unknown task"): 3_000}
    assert len({one.id for one in bench.told}) == 3_000
    assert len(living[0].take(10)) == 1


def test_a_node_that_starts_in_the_middle_of_it_keeps_its_types(bench: Bench) -> None:
    park_types(bench, 1_000, bench.now_ms() - LONG_AGO_MS)
    bench.node("other")
    bench.reap()
    left = [name.decode() for name in bench.client.hkeys(bench.keys("parked", "q1"))]
    late = bench.node(*left[:50], name="late")

    sweep(bench, lambda: bench.client.hlen(bench.keys("parked", "q1")) == 50)

    assert {message.envelope.task for message in late.take(100)} == set(left[:50])


def test_one_node_at_a_time_goes_through_the_parked_types(bench: Bench) -> None:
    park_types(bench, 3_000, bench.now_ms())
    first, second = bench.node("a", name="first"), bench.node("b", name="second")
    first.heartbeat.beat()
    bench.client.config_resetstat()

    second.heartbeat.beat()

    assert "cmdstat_hscan" not in bench.client.info("commandstats")
    assert first.heartbeat.beat() < 0.05


def test_what_is_parked_waits_until_the_letters_before_were_told_of(bench: Bench) -> None:
    park_types(bench, 3_000, bench.now_ms() - LONG_AGO_MS)
    for _ in range(50):
        bench.reap()

    assert bench.client.zcard(bench.keys("unreported")) == 1_000
    assert bench.client.hlen(bench.keys("parked", "q1")) == 2_000


def test_a_claim_finds_its_types_among_thousands_of_parked_ones(bench: Bench) -> None:
    park_types(bench, 5_000, bench.now_ms())
    node = bench.node(*(f"shop.v{n}" for n in range(4_990, 5_010)))

    with bounded(bench):
        taken = node.take(100)

    assert {message.envelope.task for message in taken} == {f"shop.v{n}" for n in range(4_990, 5_000)}
    assert bench.client.info("commandstats")["cmdstat_hmget"]["calls"] < 10


def test_a_look_lists_some_of_very_many_parked_types(bench: Bench) -> None:
    park_types(bench, 5_000, bench.now_ms(), each=1)

    with bounded(bench):
        snapshot = read_snapshot(bench.link, bench.options.prefix, ("q1",))

    [queue] = snapshot.queues
    assert 100 <= len(queue.parked) < 200
    assert queue.parked_depth == len(queue.parked) + queue.unlisted_types == 5_000


def test_a_look_sees_every_one_of_very_many_nodes(bench: Bench) -> None:
    for n in range(2_500):
        bench.client.zadd(
            bench.keys("leases"), {f"epoch-{n}": bench.now_ms() + 60_000} if n < 2 else {f"epoch-{n}": 9e15}
        )
        bench.client.hset(bench.keys("nodes"), f"epoch-{n}", json.dumps({"name": f"n{n}"}))

    with bounded(bench, scripts=6):
        snapshot = read_snapshot(bench.link, bench.options.prefix, ("q1",))

    assert len({node.name for node in snapshot.nodes}) == len(snapshot.nodes) == 2_500


def test_a_queue_is_emptied_of_very_many_parked_types_in_steps(bench: Bench) -> None:
    park_types(bench, 3_000, bench.now_ms(), each=2)
    bench.push(*map(str, range(100)))
    gone, at, calls = 0, b"0", 0
    while at != b"0" or not calls:
        with bounded(bench):
            some, at = bench.link.run("empty", bench.options.prefix, 0, "q1", at)
        gone, calls = gone + some, calls + 1

    assert (gone, calls > 5) == (6_100, True)
    assert not [key for key in bench.client.keys("*q1*") if b"parked" in key]


def test_what_a_node_held_is_compared_in_pages_after_a_broken_connection(bench: Bench) -> None:
    bench.push(*map(str, range(5_000)))
    node = bench.node()
    for _ in range(5):
        node.take(1_000)
    forgotten = sorted(node.held)[::7]
    for tag in forgotten:
        del node.held[tag]
    node.pipe.close()

    with bounded(bench, scripts=20):
        assert node.ready()
        node.done()

    assert len(bench.ready()) == len(forgotten)
    assert bench.client.hlen(bench.keys("leased", node.epoch)) == 5_000 - len(forgotten)


@pytest.mark.parametrize("given_back", [2_000])
def test_a_node_gives_back_in_steps_and_in_order(bench: Bench, given_back: int) -> None:
    bench.push(*(f"{n:05}" for n in range(given_back)))
    node = bench.node()
    tags = [message.tag for message in node.take(given_back)]

    with bounded(bench, scripts=10):
        node.give_back(tags)
        node.done()

    assert bench.client.info("commandstats")["cmdstat_evalsha"]["calls"] >= 10
    assert [unseal(blob).id for blob in bench.ready()] == [f"{n:05}" for n in range(given_back)]


def test_a_node_that_ends_gives_back_its_suspects_in_steps_and_in_order(bench: Bench) -> None:
    bench.push(*(f"{n:05}" for n in range(1_200)))
    node = bench.node()
    tags = [message.tag for message in node.take(1_000)]

    with bounded(bench, scripts=20):
        node.close(suspects=Suspects(frozenset(tags), "neighbour"))

    assert bench.client.info("commandstats")["cmdstat_evalsha"]["calls"] >= 4
    assert [unseal(blob).id for blob in bench.ready()] == [f"{n:05}" for n in range(1_200)]
    assert {unseal(blob).crashes for blob in bench.ready()[:1_000]} == {1}


def test_a_lowered_limit_drops_letters_few_at_a_time(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(dead_letters_limit=10_000)
    bench.push(*map(str, range(1_200)))
    node = bench.node()
    for message in node.take(1_000):
        node.bury(message.tag, "failed", "why")
    node.done()
    lowered = make_bench(dead_letters_limit=10)
    other = lowered.node()
    messages = other.take(100)

    for message in messages:
        other.bury(message.tag, "failed", "why")
        with bounded(lowered):
            other.done()

    assert lowered.dead.count() == {("q1", "failed"): 10}


def test_a_claim_of_large_messages_takes_some_of_them_and_passes_the_token_on(bench: Bench) -> None:
    for number in range(300):
        bench.push_bytes(seal(f"{number:03}", "shop.mail", 0, b"." * 10_000))
    node = bench.node()
    taken: list[str] = []

    while len(taken) < 300:
        bench.client.delete(bench.keys("wake", "q1"))
        some = [message.envelope.id for message in node.take(1_000)]
        taken += some
        assert len(some) <= 100
        assert bench.client.llen(bench.keys("wake", "q1")) == (len(taken) < 300)

    assert taken == [f"{number:03}" for number in range(300)]


def test_a_claim_of_large_parked_messages_takes_some_of_them_and_says_that_there_are_more(bench: Bench) -> None:
    for number in range(300):
        blob = struct.pack(">d", 0.0) + seal(f"{number:03}", "shop.mail", 0, b"." * 10_000)
        bench.client.lpush(bench.keys("parked_messages", "q1", "shop.mail"), blob)
    bench.client.hset(bench.keys("parked", "q1"), "shop.mail", 0)
    node = bench.node("shop.mail")
    taken: list[str] = []

    while len(taken) < 300:
        claim = node.ask(1_000)
        assert claim is not None
        taken += [message.envelope.id for message in claim.messages]
        assert len(claim.messages) <= 100
        assert claim.passed_over == (len(taken) < 300)

    assert taken == [f"{number:03}" for number in range(300)]


def test_what_thousands_of_messages_a_dead_node_held_come_back_in_steps(bench: Bench) -> None:
    bench.push(*map(str, range(5_000)))
    node = bench.node()
    for _ in range(5):
        node.take(1_000)
    node.die()
    bench.client.zadd(bench.keys("leases"), {node.epoch: 1})
    beats = 0

    while bench.client.exists(bench.keys("leased", node.epoch)):
        with bounded(bench):
            bench.reap()
        beats += 1

    assert 40 <= beats <= 100
    assert sorted(int(unseal(blob).id) for blob in bench.ready()) == list(range(5_000))
    assert not bench.client.exists(bench.keys("node", node.epoch))


def test_a_node_that_ends_gives_back_thousands_in_steps(bench: Bench) -> None:
    bench.push(*map(str, range(5_000)))
    node = bench.node()
    for _ in range(5):
        node.take(1_000)
    calls, left = 0, 1

    while left:
        with bounded(bench):
            left = bench.link.run("close", bench.options.prefix, 0, node.epoch, "q1")
        calls += 1

    assert 40 <= calls <= 100
    assert sorted(int(unseal(blob).id) for blob in bench.ready()) == list(range(5_000))
    assert not bench.client.exists(bench.keys("node", node.epoch))


def test_names_of_expired_task_logs_are_forgotten_few_at_a_time(bench: Bench) -> None:
    logs = bench.keys("task_logs")
    bench.client.zadd(logs, {f"old-{number}": number for number in range(5_000)})

    bench.link.run("note", bench.options.prefix, 0, "scribe", 1, 60, 10, "L", "new", "a line")

    assert bench.client.zcard(logs) == 4_501
