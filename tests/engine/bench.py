"""A small bench for tests of single operations: real nodes on a real server, in real time."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

import redis
from redis.connection import Connection

from taskapp.engine.claims import Claim, Claimed
from taskapp.engine.clock import Clock
from taskapp.engine.dead_letters import DeadLetters
from taskapp.engine.delayed import DelayedMessages
from taskapp.engine.envelope import seal
from taskapp.engine.fetcher import Fetcher
from taskapp.engine.heartbeat import Heartbeat
from taskapp.engine.limits import Limits, packed
from taskapp.engine.node import Node
from taskapp.engine.options import Buried, NodeProfile, Options
from taskapp.engine.producer import Message, Producer, Taken
from taskapp.engine.settlement import Chord, ChordPart, Result, Settlement
from taskapp.engine.slots import SingleKindSlots
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from tests.support import RedisServer

TASK = "shop.mail"
PATIENCE_SECONDS = 10.0


class Bench:
    """A server, a producer, and as many nodes as a test wants."""

    def __init__(self, server: RedisServer, options: Options | None = None) -> None:
        self.port = server.port
        self.options = options or Options()
        self.keys = Keys(self.options.prefix)
        self.client = redis.Redis(port=self.port)
        self.link = Link(self.connect)
        self.producer = Producer(Link(self.connect), self.options, 4.0)
        self.dead = DeadLetters(self.link, self.options.prefix)
        self.delayed = DelayedMessages(self.link, self.options.prefix, ("q1", "q2"))
        self.nodes: list[TestNode] = []
        self.told: list[Buried] = []

    def connect(self) -> Connection:
        return Connection(port=self.port, protocol=2, socket_timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        for node in self.nodes:
            node.die()
        self.producer.link.close()
        self.link.close()
        self.client.close()

    def push(self, *names: str, queue: str = "q1", priority: int = 0, due_ms: int = 0, task: str = TASK) -> None:
        """Push sealed messages whose bodies are their names."""
        self.producer.push(
            [Message(queue, priority, due_ms, name, seal(name, task, priority, name.encode())) for name in names]
        )

    def submit(
        self, *names: str, limits: Limits, queue: str = "q1", priority: int = 0, due_ms: int = 0, task: str = TASK
    ) -> list[Taken]:
        """Push messages with limits whose bodies are their names; return those whose unique key is taken."""
        return self.producer.push([self.limited(name, limits, queue, priority, due_ms, task) for name in names])

    def limited(
        self, name: str, limits: Limits, queue: str = "q1", priority: int = 0, due_ms: int = 0, task: str = TASK
    ) -> Message:
        """Return a message with limits whose body is its name."""
        blob = seal(name, task, priority, name.encode(), packed(limits))
        return Message(queue, priority, due_ms, name, blob, is_limited=True)

    def push_bytes(self, blob: bytes, queue: str = "q1", priority: int = 0, due_ms: int = 0) -> None:
        """Push bytes as they come."""
        self.producer.push([Message(queue, priority, due_ms, "name of bytes", blob)])

    def now_ms(self) -> int:
        """The engine's time."""
        return int(self.link.run("push", self.options.prefix, 0, "", 0)[0])

    def set_the_servers_clock(self, seconds: float) -> None:
        """Move the clock that Redis has by so much; the engine adds an offset to it, and cannot tell."""
        self.client.hincrby(self.keys("clock"), "offset", int(seconds * 1_000))

    def let_time_pass(self, seconds: float) -> None:
        """Move the clock that Redis has; no node knows what time it was."""
        self.set_the_servers_clock(seconds)
        self.producer.clock = Clock()
        for node in self.nodes:
            node.clock = node.heartbeat._clock = Clock()

    def node(self, *types: str, name: str = "node") -> TestNode:
        """Start a node that beats only on request."""
        role = NodeProfile(name=name, types=lambda: dict.fromkeys(types, ""), on_buried=self.told.extend)
        node = TestNode(self.connect, self.options, role)
        self.nodes.append(node)
        return node

    def reap(self) -> None:
        """Look for leases that have ended, as a node would that holds none."""
        link = Link(self.connect)
        Heartbeat(link, self.options, self.producer.clock, self.told.extend).beat()
        link.close()

    def end_leases(self, *epochs: str | bytes) -> None:
        """Let leases end now, as if their nodes had been silent for a lease."""
        self.client.zadd(self.keys("leases"), dict.fromkeys(epochs, 1.0), xx=True)

    def ready(self, queue: str = "q1", priority: int = 0) -> list[bytes]:
        """What is ready, the first to be taken first."""
        return self.client.lrange(self.keys.ready(queue, priority), 0, -1)[::-1]


class TestNode(Node):
    """A node whose calls can be waited for."""

    __test__ = False

    def __init__(self, connect: Callable[[], Connection], options: Options, role: NodeProfile) -> None:
        super().__init__(connect, options, role)
        self.heartbeat.start = lambda: None
        assert self.ready()
        self.done()

    def done(self) -> None:
        """Wait until everything is answered."""
        deadline = monotonic() + PATIENCE_SECONDS
        self.flush(deadline)
        assert monotonic() < deadline, "an answer did not come"

    def ask(self, want: int = 1, queues: Sequence[str] = ("q1", "q2")) -> Claim | None:
        """Claim and wait for the answer."""
        answers: list[Claim | None] = []
        self.claim(queues, want, answers.append)
        self.done()
        return answers[0] if answers else None

    def take(self, want: int = 1, queues: Sequence[str] = ("q1", "q2")) -> list[Claimed]:
        """Claim and return the messages."""
        claim = self.ask(want, queues)
        assert claim is not None, "the claim was refused"
        return claim.messages

    def die(self) -> None:
        """Drop everything, as a killed process does."""
        self.pipe.close()
        self.heartbeat._link.close()


def leaving(*left: Result | ChordPart | Chord | Message) -> Settlement:
    """Return the settlement of a run that leaves all of ``left``."""
    settlement = Settlement()
    lists = {
        Result: settlement.results, ChordPart: settlement.parts, Chord: settlement.chords,
        Message: settlement.messages,
    }  # fmt: skip
    for each in left:
        lists[type(each)].append(each)
    return settlement


def names(messages: Iterable[Claimed]) -> list[str]:
    """Return the bodies of messages."""
    return [message.envelope.body.decode() for message in messages]


class Shift:
    """A consumer with some slots, on a small loop; each message takes ``seconds``."""

    def __init__(
        self, bench: Bench, queues: Sequence[str], slots: int = 1, seconds: float = 0.0, types: Sequence[str] = ()
    ) -> None:
        self.started: dict[str, float] = {}
        """Name to when it was handed out."""
        self._running: list[tuple[float, str]] = []
        self._seconds, self._slots = seconds, slots
        self.node = bench.node(*types)
        free = SingleKindSlots(lambda: self._slots - len(self._running))
        self.consumer = Fetcher(self.node, bench.connect, bench.keys, free, self._begin, lambda: True)
        self.consumer.consume(queues)

    def _begin(self, message: Claimed) -> None:
        self.started[message.envelope.body.decode()] = monotonic()
        self._running.append((monotonic() + self._seconds, message.tag))

    def turn(self, most_seconds: float) -> None:
        """Turn the loop once: do what can be done, then wait for something to happen."""
        self._finish()
        self.consumer.tick()
        self.node.ends.flush()
        watched = {
            pipe.socket: read
            for pipe, read in ((self.node.pipe, self.node.read), (self.consumer.waiting, self.consumer.read_waiting))
            if pipe.socket is not None
        }
        until_done = min((at - monotonic() for at, _ in self._running), default=most_seconds)
        wait = max(0.0, min(self.consumer.due_seconds(), until_done, most_seconds))
        for readable in select.select(list(watched), [], [], wait)[0]:
            watched[readable]()

    def _finish(self) -> None:
        done = [tag for at, tag in self._running if at <= monotonic()]
        self._running = [each for each in self._running if each[1] not in done]
        for tag in done:
            self.node.settle(tag)
            self.consumer.pace.ran(self._seconds)

    def stop(self) -> None:
        """Stop consuming."""
        self.consumer.stop()
        self.node.die()
