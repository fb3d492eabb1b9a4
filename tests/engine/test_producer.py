"""Pushing over a connection that breaks: never twice, never lost, and never silently unknown."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.connection import Connection

from taskapp.engine.envelope import seal, unseal
from taskapp.engine.options import Options
from taskapp.engine.producer import PUSHED_AT_ONCE, Message, Producer
from taskapp.engine.runtime import Runtime, runtime_for
from taskapp.errors import NotQueued, SubmitOutcomeUnknown
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from tests.engine.proxy import Proxy
from tests.support import RedisServer, clean_environment, eventually

QUEUE = "mails"
CUTS = {
    "before the server saw it": lambda proxy: setattr(proxy, "cut_question", True),
    "after the server did it": lambda proxy: setattr(proxy, "cut_answer", 0),
}
Cut = Callable[[Proxy], None]


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def producer(proxy: Proxy) -> Iterator[Producer]:
    """A producer behind the proxy, with its connection open and its script loaded."""
    producer = producer_at(proxy.port, deadline_seconds=1.0)
    producer.push([message("first")])
    producer.link.command("DEL", Keys().ready(QUEUE))
    yield producer
    producer.link.close()


@pytest.fixture(params=CUTS.values(), ids=CUTS)
def cut(request: pytest.FixtureRequest) -> Cut:
    """Break the connection at the next push."""
    return request.param


def producer_at(port: int, deadline_seconds: float = 0.4) -> Producer:
    return Producer(Link(lambda: Connection(port=port, protocol=2, socket_timeout=1)), Options(), deadline_seconds)


def message(name: str, due_ms: int = 0) -> Message:
    return Message(QUEUE, 0, due_ms, name, seal(name, "mail", 0, b"hello"))


def queued(server: RedisServer) -> list[str]:
    """The ids in the queue, the first to be taken first."""
    with server.client as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        return [unseal(blob).id for blob in reversed(client.lrange(Keys().ready(QUEUE), 0, -1))]


def test_a_push_whose_connection_breaks_is_queued_once(
    server: RedisServer, proxy: Proxy, producer: Producer, cut: Cut
) -> None:
    cut(proxy)

    producer.push([message("a"), message("b")])

    assert proxy.cuts > 0
    assert queued(server) == ["a", "b"]


def test_a_push_that_arrives_after_it_was_given_up_does_nothing(
    server: RedisServer, proxy: Proxy, producer: Producer
) -> None:
    proxy.hold_question = True
    producer.push([message("a")])

    proxy.release()
    probe = producer_at(server.port)

    eventually(lambda: probe.link.command("INFO", "commandstats").count(b"evalsha"))
    probe.push([message("b")])
    assert queued(server) == ["a", "b"]


def test_what_nobody_can_find_out_is_said_to_be_unknown_and_can_be_pushed_again(
    server: RedisServer, proxy: Proxy, producer: Producer, cut: Cut
) -> None:
    cut(proxy)
    proxy.refuse_after_cut = True

    with pytest.raises(SubmitOutcomeUnknown) as caught:
        producer.push([message("a"), message("b")])

    assert caught.value.task_ids == ["a", "b"]
    assert caught.value.not_queued == []
    proxy.refuse = proxy.refuse_after_cut = False
    producer.push([message("a"), message("b")])
    assert sorted(queued(server)) == ["a", "b"]


@pytest.mark.parametrize("answers", range(1, 8))
def test_pushing_again_may_itself_break_off_and_still_nothing_is_queued_twice(
    server: RedisServer, proxy: Proxy, producer: Producer, cut: Cut, answers: int
) -> None:
    """The second push breaks after some answers: to the handshake, or about one message or the other."""
    cut(proxy)
    proxy.refuse_after_cut = True
    with pytest.raises(SubmitOutcomeUnknown):
        producer.push([message("a"), message("b")])

    proxy.refuse, proxy.cut_answer = False, answers
    with suppress(SubmitOutcomeUnknown, NotQueued):
        producer.push([message("a"), message("b")])
    proxy.refuse, proxy.refuse_after_cut, proxy.cut_answer = False, False, None
    if proxy.cuts > 2:
        producer.push([message("a"), message("b")])

    assert sorted(queued(server)) == ["a", "b"]


def test_who_pushes_again_hears_of_every_message_that_is_not_queued(
    server: RedisServer, proxy: Proxy, producer: Producer
) -> None:
    proxy.cut_question = proxy.refuse_after_cut = True
    with pytest.raises(SubmitOutcomeUnknown):
        producer.push([message("a")])

    with pytest.raises(SubmitOutcomeUnknown) as caught:
        producer.push([message("a"), message("new")])

    assert caught.value.task_ids == ["a"]
    assert caught.value.not_queued == ["new"]


def test_an_unreachable_server_means_that_nothing_is_queued(
    server: RedisServer, proxy: Proxy, producer: Producer
) -> None:
    proxy.refuse = True
    producer.link.close()

    with pytest.raises(NotQueued) as caught:
        producer.push([message("a")])

    assert caught.value.task_ids == ["a"]
    proxy.refuse = False
    assert queued(server) == []


def test_thousands_are_pushed_in_order_and_in_few_steps(server: RedisServer, producer: Producer) -> None:
    names = [f"id-{number}" for number in range(2 * PUSHED_AT_ONCE + 7)]

    producer.push([message(name) for name in names])

    assert queued(server) == names


def test_of_thousands_those_behind_a_break_are_named_as_not_queued(
    server: RedisServer, proxy: Proxy, producer: Producer
) -> None:
    names = [f"id-{number}" for number in range(2 * PUSHED_AT_ONCE)]
    proxy.cut_answer, proxy.refuse_after_cut = 1, True

    with pytest.raises(SubmitOutcomeUnknown) as caught:
        producer.push([message(name) for name in names])

    assert caught.value.task_ids == names[PUSHED_AT_ONCE:]
    assert caught.value.not_queued == []
    assert queued(server) == names


FORKING = """
import os, sys, time
from taskapp.transport import transport
from taskapp.engine.producer import Message
from taskapp.engine.envelope import seal

connection = transport.Connection(sys.argv[1])
channel = connection.channel()
before = channel.process
def push(who):
    process = channel.process
    for number in range(200):
        name = f"{who}-{number}"
        process.producer.push([Message("mails", 0, 0, name, seal(name, "mail", 0, b""))])
    return process
push("before")
before.node.ready(); before.node.flush(time.monotonic() + 5)
child = os.fork()
mine = push("child" if child == 0 else "parent")
if child == 0:
    assert mine is not before
    os._exit(0)
assert mine is before
assert os.waitpid(child, 0)[1] == 0
assert before.node.heartbeat.beat() and not before.node.heartbeat.lost
print(connection.default_channel.process.node.epoch)
"""


def test_a_forked_child_pushes_over_a_connection_of_its_own(server: RedisServer, tmp_path: Path) -> None:
    script = tmp_path / "forking.py"
    script.write_text(FORKING)

    done = subprocess.run(
        [sys.executable, str(script), server.url], env={**clean_environment(), "PYTHONPATH": str(Path.cwd())},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    names = queued(server)
    assert len(names) == len(set(names)) == 600
    assert [name for name in names if name.startswith("child")] == [f"child-{number}" for number in range(200)]


def test_all_threads_share_one_producer_also_when_they_begin_at_once():
    barrier, found = threading.Barrier(16), []

    def make() -> Runtime:
        time.sleep(0.02)  # a second one that is made meanwhile would be found below
        return Runtime(lambda: None, Options(), 1.0)  # type: ignore[arg-type]

    def begin() -> None:
        barrier.wait()
        found.append(runtime_for("one server", make))

    threads = [threading.Thread(target=begin) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({id(process) for process in found}) == 1


@pytest.mark.parametrize("due_ms", [0, 10**15])
def test_a_message_of_an_outbox_is_queued_once_by_all_relays_together(server: RedisServer, due_ms: int) -> None:
    relayed = [message(f"row-{number}", due_ms)._replace(is_relayed=True) for number in range(3)]
    first, second = producer_at(server.port), producer_at(server.port)
    first.push([message("before"), *relayed[:2], message("after")])
    server.client.delete(f"taskapp:{{{QUEUE}}}:delayed")  # it has run
    second.push([relayed[0], message("again"), *relayed[1:]])
    first.link.close()
    second.link.close()

    delayed = server.client.zrange(f"taskapp:{{{QUEUE}}}:delayed", 0, -1)
    if due_ms:
        assert (queued(server), delayed) == (["before", "after", "again"], ["row-2"])
    else:
        assert (queued(server), delayed) == (["before", "row-0", "row-1", "after", "again", "row-2"], [])
    assert 86_000 < server.client.ttl("taskapp:relayed:row-0") <= 86_400
