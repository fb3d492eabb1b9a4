"""Connections that break, again and again: no loop watches a closed descriptor, no node falls silent or runs twice."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.connection import Connection
from redis.exceptions import RedisError

from taskapp.engine.envelope import unseal
from taskapp.engine.node import Node
from taskapp.engine.options import NodeProfile, Options
from taskapp.engine.settlement import Result
from taskapp.redis.pipe import Pipe
from tests.engine.bench import Bench, TestNode, leaving, names
from tests.engine.watching import HOW, LOOPS
from tests.faults.breaks import Breaks
from tests.faults.producers import ROOT
from tests.support import clean_environment, eventually, examples

ROUNDS = 2 * len(HOW)
Make = Callable[..., Bench]


@pytest.mark.quick("uvloop-1", "hub-1")
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_survives_connections_that_break_in_every_way(bench: Bench, loop: str, seed: int) -> None:
    """Children hold copies of all descriptors meanwhile: a closed one goes on being announced to who forgot it."""
    argv = [sys.executable, "-m", "tests.engine.watching", loop, str(bench.port), str(ROUNDS), str(seed)]
    done = subprocess.run(argv, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, f"{done.returncode} {done.stderr[-2000:]}"
    assert done.stdout == f"{ROUNDS}\n"


# --- a pipe -------------------------------------------------------------------------------------------


@contextmanager
def piped() -> Iterator[tuple[Pipe, socket.socket]]:
    """A pipe whose server is the test."""
    here, there = socket.socketpair()
    here.settimeout(0)
    connection = Connection()
    connection._sock = here
    pipe = Pipe(Connection)
    pipe._connection, pipe._reader = connection, hiredis.Reader(notEnoughData=False)
    try:
        yield pipe, there
    finally:
        pipe.close()
        there.close()


@pytest.fixture
def pair() -> Iterator[tuple[Pipe, socket.socket]]:
    with piped() as pair:
        yield pair


ANSWERS = b"+OK\r\n$5\r\nhello\r\n*2\r\n:1\r\n$-1\r\n:7\r\n"


@given(cuts=st.lists(st.integers(0, len(ANSWERS)), max_size=5).map(sorted))
@settings(max_examples=examples(50), deadline=None)
def test_answers_are_handed_out_however_they_are_cut(cuts: list[int]) -> None:
    got: list[object] = []
    with piped() as (pipe, server):
        for _ in range(4):
            assert pipe.ask("PING", on_answer=got.append)
        for start, end in zip([0, *cuts], [*cuts, len(ANSWERS)], strict=True):
            server.sendall(ANSWERS[start:end])
            assert pipe.read()

    assert got == [b"OK", b"hello", [1, None], 7]


def test_a_read_with_nothing_to_read_does_not_wait(pair: tuple[Pipe, socket.socket]) -> None:
    pipe, server = pair
    assert pipe.read()
    server.sendall(b"$100\r\nhalf")
    assert pipe.read()
    assert pipe.read()


def test_an_answer_to_no_call_breaks_the_connection_and_nothing_else(pair: tuple[Pipe, socket.socket]) -> None:
    pipe, server = pair
    got: list[object] = []
    assert pipe.ask("PING", on_answer=got.append)

    server.sendall(b"+PONG\r\n-ERR idle for too long\r\n")

    assert not pipe.read()
    assert got == [b"PONG"]
    assert not pipe.is_open


def test_a_thread_that_finds_a_connection_broken_leaves_closing_it_to_its_owner(
    pair: tuple[Pipe, socket.socket],
) -> None:
    pipe, server = pair
    watched, told = pipe.socket, []
    pipe.before_closing(lambda socket: told.append((socket, socket.fileno() >= 0)))
    server.close()

    thread = threading.Thread(target=lambda: [pipe.ask("PING", on_answer=print) for _ in range(3)])
    thread.start()
    thread.join()

    assert not pipe.is_open
    assert watched.fileno() >= 0
    assert told == []
    assert not pipe.read()
    assert told == [(watched, True)]
    assert watched.fileno() < 0


def test_nobody_waits_for_a_server_that_takes_connections_and_says_nothing(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        node = Node(lambda: Connection(port=port, protocol=2, socket_timeout=0.5), Options(), NodeProfile())
        began_at = monotonic()
        assert not node.is_ready()
        assert not node.is_ready()
        assert monotonic() < began_at + 0.4
        node.pipe.close()


# --- a lease ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_in_task", [True, False])
def test_only_a_loop_that_a_task_holds_up_keeps_its_lease(make_bench: Make, is_in_task: bool) -> None:
    bench = make_bench(lease_seconds=0.6)
    bench.push("a")
    held_up, other = bench.node(), bench.node(name="other")
    held_up._role.is_in_task = lambda: is_in_task
    assert names(held_up.take()) == ["a"]
    held_up.turned_at = monotonic() - 60

    def beat_until_taken() -> bool:
        held_up.heartbeat.beat()
        other.heartbeat.beat()
        return names(other.take()) == ["a"]

    if is_in_task:
        deadline = monotonic() + 3 * bench.options.lease_seconds
        while monotonic() < deadline:
            assert not beat_until_taken()
        assert not held_up.heartbeat.lost
    else:
        eventually(beat_until_taken)


def test_a_loop_that_goes_on_in_time_keeps_its_lease(make_bench: Make) -> None:
    bench = make_bench(lease_seconds=30.0)
    node = bench.node()
    node._role.is_in_task = lambda: False
    node.turned_at = monotonic() - 60
    assert node.heartbeat.beat() <= 0.5
    renewed_at = node.heartbeat.renewed_at
    node.turned_at = monotonic()
    node.heartbeat.beat()
    assert node.heartbeat.renewed_at > renewed_at


REFUSALS = {
    "NOREPLICAS": ({"min-replicas-to-write": 1}, {"min-replicas-to-write": 0}),
    "READONLY": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "NOPERM": (("ACL", "SETUSER", "default", "-hset"), ("ACL", "SETUSER", "default", "+hset")),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_that_refuses_to_write_has_not_ended_a_lease(
    make_bench: Make, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench(lease_seconds=30.0)
    bench.push("a")
    node = bench.node()
    [message] = node.take()
    epoch = node.epoch
    begin, end = REFUSALS[refusal]

    def order(what: object) -> None:
        if isinstance(what, dict):
            bench.client.config_set(*next(iter(what.items())))
        else:
            bench.client.execute_command(*what)

    order(begin)
    try:
        node.drop()
        assert node.ready()
        node.done()
        assert "the broker refuses to recover a lease" in caplog.text
        assert not node.heartbeat.lost
        assert not node.is_ready()
    finally:
        order(end)
    eventually(node.is_ready)
    node.done()

    assert node.epoch == epoch
    assert list(node.held) == [message.tag]
    node.settle(message.tag)
    node.ends.flush()
    node.done()
    assert bench.client.hlen(bench.keys("leased", epoch)) == 0
    assert "has gone to another node" not in caplog.text


@pytest.mark.parametrize(("silent_share", "is_reaped"), [(0.4, True), (0.55, False)])
def test_a_server_that_wrote_nothing_for_half_a_lease_ends_none(
    make_bench: Make, silent_share: float, is_reaped: bool
) -> None:
    """Its nodes had beaten a third of a lease before, and take a moment to beat again."""
    bench = make_bench(lease_seconds=60.0)
    bench.push("a")
    node, other = bench.node(), bench.node(name="other")
    node.take()
    silent_ms = silent_share * bench.options.lease_ms
    bench.client.hset(bench.keys("clock"), mapping={"tick": int(bench.now_ms() - silent_ms), "reap_after": 0})
    bench.client.zadd(bench.keys("leases"), {node.epoch: bench.now_ms() - 1})

    other.heartbeat.beat()

    assert bool(bench.ready()) == is_reaped


def test_a_connection_that_the_network_forgot_is_given_up_while_the_server_answers_others(bench: Bench) -> None:
    way = Breaks(bench.port, 1)
    node = TestNode(
        lambda: Connection(port=way.port, protocol=2, socket_timeout=1), bench.options, NodeProfile(name="far")
    )
    bench.nodes.append(node)
    node.heartbeat.beat()
    way.do("forget_all")
    eventually(lambda: all(end.is_forgotten for end in list(way.ends)))
    bench.push("a")
    node.claim(["q1"], 1, lambda claim: None)

    assert not node.is_deaf(node.pipe, 0.2)

    def beats_and_is_deaf() -> bool:
        try:
            node.heartbeat.beat()
        except RedisError:
            return False
        return node.is_deaf(node.pipe, 0.2)

    eventually(beats_and_is_deaf)
    node.drop()
    assert node.ready()
    node.done()
    assert names(node.take()) == ["a"]
    way.close()


def test_a_node_that_ends_without_a_connection_settles_what_has_finished(bench: Bench) -> None:
    """Its connection broke, and the next attempt is due later than its end."""
    bench.push("finished", "retried", "waiting")
    bench.push("of no type", task="video")
    node = bench.node()
    finished, retried, _, parked = node.take(4)
    node.pipe.close()
    node.retry_at = monotonic() + 60

    node.settle(finished.tag, leaving(Result("result", b"42", 60)))
    node.give_back([retried.tag], "retry")
    node.park(parked.tag, "video")
    node.close(("q1", "q2"))

    assert bench.client.get("result") == b"42"
    assert [(unseal(blob).id, unseal(blob).deliveries) for blob in bench.ready()] == [("waiting", 0), ("retried", 1)]
    assert bench.client.llen(bench.keys("parked_messages", "q1", "video")) == 1
    assert bench.client.exists(bench.keys("leased", finished.lease)) == 0
