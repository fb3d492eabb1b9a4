"""A server, its model, and the engine's time: what the state machine drives in addition to its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from redis.connection import Connection

from taskapp.engine.clock import Clock, Reading
from taskapp.engine.dead_letters import DeadLetters
from taskapp.engine.delayed import DelayedMessages
from taskapp.engine.envelope import seal, unseal
from taskapp.engine.heartbeat import Heartbeat
from taskapp.engine.options import Buried, Options
from taskapp.engine.producer import Message as Pushed
from taskapp.engine.producer import Producer
from taskapp.engine.settlement import ChordPart, Settlement
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, is_modern
from taskapp.redis.scripts import ROOMS, script
from taskapp.transport.codec import pack_task
from tests.engine.model import (
    CRASH_LIMIT,
    DEAD_LIMIT,
    GUARD,
    LEASE_UNITS,
    PARKED_UNITS,
    QUEUES,
    RUN,
    UNIT_SECONDS,
    Chord,
    Engine,
    Leaves,
    Message,
)
from tests.engine.observed import Observer
from tests.support import RedisServer

if TYPE_CHECKING:
    from tests.engine.driver import DrivenNode

PREFIX = "shop:"
TASKS = ("mail", "video", "shop.count")
OPTIONS = Options(
    prefix=PREFIX,
    lease_seconds=LEASE_UNITS * UNIT_SECONDS,
    starvation_guard=GUARD,
    crash_limit=CRASH_LIMIT,
    dead_letters_limit=DEAD_LIMIT,
    parked_seconds=PARKED_UNITS * UNIT_SECONDS,
)
SCRIPTS = (
    "adopt", "beat", "cancel", "chord", "claim", "close", "empty", "open", "park", "purge", "push", "recover", "replay",
    "requeue", "reschedule", "resolve", "settle",
)  # fmt: skip
SET_TIME = "local t = redis.call('TIME') redis.call('HSET', KEYS[1], 'offset', ARGV[1] - t[1] * 1000)"

Fault = Literal["none", "unsent", "unanswered"]
"""``unsent``: the connection breaks before the call; ``unanswered``: after the server carried it out."""


class LosingSocket:
    """A socket that breaks when the next answer has come."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.sendall = real.sendall

    def recv(self, size: int) -> bytes:
        self._real.recv(size)
        raise ConnectionResetError("the answer was lost")


class World:
    """A server, the model of it, and the engine's time."""

    def __init__(self, server: RedisServer, rooms: Path = ROOMS) -> None:
        self.port, self.rooms = server.port, rooms
        self.control = self.link()
        self.control.command("FLUSHALL")
        self.modern = is_modern(self.connect())
        self.base_ms = int(self.control.command("TIME")[0]) * 1_000
        self.model = Engine()
        self.observer = Observer(self.control, PREFIX, self.base_ms, (*TASKS, "elsewhere"))
        self.producer = Producer(self.link(), OPTIONS, deadline_seconds=5.0)
        self.producer.clock = Steered(self)
        self.told: list[Buried] = []
        self.reaper = Heartbeat(self.link(), OPTIONS, Steered(self), self.told.extend)
        self.delayed = DelayedMessages(self.link(), PREFIX, QUEUES)
        self.dead = DeadLetters(self.link(), PREFIX)
        self.nodes: list[DrivenNode] = []
        self.results: dict[str, bytes | None] = {}
        self.made = 0
        self.load_scripts()
        self.hold_time()

    # --- connections ------------------------------------------------------------------------------

    def connect(self) -> Connection:
        return Connection(host="127.0.0.1", port=self.port, protocol=2, socket_timeout=10)

    def link(self) -> Link:
        return Link(self.connect, self.rooms)

    def load_scripts(self) -> None:
        """Let the server know every script, as one that has run for a while does."""
        for name in SCRIPTS:
            self.control.command("SCRIPT", "LOAD", script(name, self.rooms).source(modern=self.modern).text)

    def close(self) -> None:
        for node in self.nodes:
            node.let_go()
        for link in (self.producer.link, self.reaper._link, self.delayed._link, self.dead._link, self.control):
            link.close()

    # --- time -------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        return self.at_ms(self.model.now)

    def at_ms(self, units: float) -> int:
        return self.base_ms + round(units * UNIT_SECONDS * 1_000)

    def hold_time(self) -> None:
        """Set the engine's time to the model's."""
        self.control.command("EVAL", SET_TIME, 1, Keys(PREFIX)("clock"), self.now_ms)

    # --- what belongs to no node ------------------------------------------------------------------

    def new_message(self, task: str, priority: int) -> tuple[str, Message, bytes]:
        """Return a name for a new message, the message, and its bytes; without a task type it is no sealed one."""
        self.made += 1
        name = f"id-{self.made}"
        if task:
            message = Message(name, task, priority, self._body(name, task))
        else:
            message = Message("", "", priority, b'{"stock": %d}' % self.made)
        return name, message, self.blob_of(message)

    def _body(self, name: str, task: str) -> bytes:
        """Return the body of a task; the number of its headers has one byte in some, three in others."""
        headers = {"id": name, "task": task} | {f"header {number}": None for number in range(self.made % 15)}
        return unseal(pack_task((name, "application/json", "utf-8"), headers, 0, None, None, "", "")).body

    def blob_of(self, message: Message) -> bytes:
        """Return the bytes of a message nobody has counted yet."""
        return seal(message.id, message.task, message.priority, message.body) if message.task else message.body

    def begin_chord(self, size: int, priority: int) -> None:
        """Begin a chord that waits for ``size`` parts."""
        name, finish, blob = self.new_message(TASKS[0], priority)
        self.control.run("chord", PREFIX, self.now_ms, f"chord of {name}", size, "about it", blob, 0)
        self.model.chords[f"chord of {name}"] = Chord(size, finish)

    def settlement_of(self, leaves: Leaves) -> Settlement:
        """Return what the engine gets to carry out ``leaves``."""
        settlement = Settlement()
        settlement.run = RUN
        if leaves.part is not None:
            chord, slot, outcome = leaves.part
            settlement.parts.append(ChordPart(chord, slot, int(outcome[:1]), outcome[1:], 60))
        if leaves.finished:
            settlement.finished.append(leaves.finished)
        for queue, name, message, due in leaves.follow_ups:
            due_ms = self.at_ms(due) if due else 0
            settlement.add(Pushed(queue, message.priority, due_ms, name, self.blob_of(message)))
        return settlement

    def settle_letter(self, queue: str, number: int, leaves: Leaves) -> None:
        """Fail a task that was buried, or try to."""
        settled = self.dead.settle(queue, number, self.settlement_of(leaves))
        assert settled == self.model.settle_letter(queue, number, leaves)

    def push(self, queue: str, priority: int, tasks: Sequence[str], delay: float, fault: Fault) -> None:
        due = self.model.now + delay if delay else 0
        made = [self.new_message(task, priority) for task in tasks]
        if fault != "none":
            self._spoil_producer(fault)
        due_ms = self.at_ms(due) if due else 0
        self.producer.push([Pushed(queue, priority, due_ms, name, blob) for name, _, blob in made])
        self.model.push(queue, [(name, message) for name, message, _ in made], due)

    def push_as_stock(self, queue: str, priority: int, tasks: Sequence[str]) -> None:
        """Push to the list of kombu's name, as stock clients and older versions do."""
        for task in tasks:
            _, message, blob = self.new_message(task, priority)
            self.control.command("LPUSH", self.observer.keys.kombu(queue, priority), blob)
            self.model.push_as_stock(queue, [message])

    def _spoil_producer(self, fault: Fault) -> None:
        if fault == "unanswered":
            self.load_scripts()
            self.producer.link.command("PING")
            line = self.producer.link._line
            line.socket = LosingSocket(line.socket)
        else:
            self.control.command("CLIENT", "KILL", "ID", self.producer.link.command("CLIENT", "ID"))

    def check(self) -> None:
        """Compare the server with the model."""
        seen = self.observer.observe()
        for message in self.model.everywhere():
            if message.either is not None and seen["ready_at"].get(message.body) == message.either:
                message.ready_at = message.either
            message.either = None
        wanted = self.model.snapshot()
        for moment, ends in self.model.leases.items():
            # Leases begin when the server's clock says so, some milliseconds after the model's.
            if abs(seen["leases"].get(moment, float("inf")) - ends) < 0.1:
                wanted["leases"][moment] = self.model.leases[moment] = seen["leases"][moment]
        for place, found in seen.items():
            assert found == wanted[place], f"{place} on the server:\n  {found}\nbut shall be:\n  {wanted[place]}"
        assert sorted(self.told) == sorted(self.model.told), f"told of {self.told}, shall be {self.model.told}"
        everywhere = [message.body for message in self.model.everywhere()]
        assert len(everywhere) == len(set(everywhere)) == self.model.pushed - self.model.gone.total()
        for node in self.nodes:
            node.check()


class Steered(Clock):
    """A clock that shows the model's time."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def predicted_ms(self) -> int:
        return self._world.now_ms

    def observe(self, reading: Reading, sent_ms: float, read_ms: float) -> int | None:
        return None
