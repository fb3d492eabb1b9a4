"""The delivery engine in memory: ready and delayed messages, results and chords, with the rules of the scripts.

What the scripts in ``engine/lua`` and ``results/lua`` do in Redis is done here with dicts. Everything around it, from
``delay()`` to the settlement of a run, is the code that runs in production.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, NamedTuple, NoReturn

from taskapp.engine.claims import Claimed
from taskapp.engine.envelope import unseal
from taskapp.engine.producer import Message, Producer, Taken
from taskapp.engine.runtime import Runtime
from taskapp.engine.settlement import Chord, ChordPart, Settlement
from taskapp.errors.testing import NotInKit
from taskapp.queues import HIGHEST_PRIORITY
from taskapp.testing.clock import ManualClock

LEASE = "testing"
"""In place of the key of a node's lease."""
SUCCESSES = (b'{"status": "SUCCESS"', b'{"status":"SUCCESS"')
"""How a stored success begins."""
_DELIVERIES = slice(2, 4)
"""Where the envelope counts deliveries, see ``engine.envelope``."""


class QueuedMessage(NamedTuple):
    """A message in a queue."""

    due_ms: int
    """0: it was ready at once."""
    number: int
    """Increases with every push."""
    queue: str
    priority: int
    blob: bytes


class StoredValues:
    """Results, and whatever else Celery stores, until they expire by the clock."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._values: dict[bytes, tuple[bytes, float]] = {}

    def store(self, key: bytes, value: bytes, keep_seconds: float) -> bool:
        """Store a result unless a success is stored there; return whether it did."""
        if (before := self.get(key)) is not None and before.startswith(SUCCESSES):
            return False
        self.put(key, value, keep_seconds)
        return True

    def put(self, key: bytes, value: bytes, keep_seconds: float = 0) -> None:
        """Store any value; 0 seconds: forever."""
        self._values[key] = value, self._clock.now + keep_seconds if keep_seconds else 0.0

    def get(self, key: bytes) -> bytes | None:
        """Return a stored value; ``None`` if there is none, or it has expired."""
        value, until = self._values.get(key, (None, 0.0))
        return None if until and until <= self._clock.now else value

    def expire(self, key: bytes, keep_seconds: float) -> None:
        """Let a value expire."""
        if (value := self.get(key)) is not None:
            self.put(key, value, keep_seconds)

    def delete(self, key: bytes) -> None:
        """Delete a value."""
        self._values.pop(key, None)


class _OpenChord:
    def __init__(self, chord: Chord) -> None:
        self.about, self.finish = chord.about, chord.finish
        self.size, self.extra, self.is_sent = chord.size, 0, False
        self.parts: dict[str, tuple[int, bytes]] = {}


class OpenChords:
    """Chords whose parts are being counted, see ``begin_chord`` and ``count_part`` in ``prelude.lua``."""

    def __init__(self) -> None:
        self._chords: dict[str, _OpenChord] = {}

    def begin(self, chord: Chord) -> None:
        """Begin ``chord``, replacing one with the same id."""
        self._chords[chord.id] = _OpenChord(chord)

    def set_size(self, chord_id: str, size: int) -> None:
        """Set how many parts a chord waits for, unless that is known."""
        if (chord := self._chords.get(chord_id)) is not None:
            chord.size = chord.size or size

    def extend(self, chord_id: str) -> None:
        """Make a chord wait for one more part."""
        if (chord := self._chords.get(chord_id)) is not None:
            chord.extra += 1

    def count(self, part: ChordPart) -> bytes | None:
        """Count a part; return the message that finishes the chord if it was the last one."""
        chord = self._chords.get(part.chord)
        if chord is None or chord.is_sent:
            return None
        if chord.parts.get(part.slot, (0, b""))[0] != 1:
            chord.parts[part.slot] = part.is_success, part.value
        if not chord.size or len(chord.parts) < chord.size + chord.extra:
            return None
        chord.is_sent = True
        return chord.finish

    def read(self, chord_id: str) -> tuple[bytes | None, list[bytes]]:
        """Return the data of a chord, ``None`` if there is none, and the values of its parts."""
        chord = self._chords.get(chord_id)
        return (None, []) if chord is None else (chord.about, [value for _, value in chord.parts.values()])

    def forget(self, chord_id: str) -> None:
        """Delete a finished chord."""
        self._chords.pop(chord_id, None)


class MemoryEngine:
    """All messages and results of one test. Thread-safe.

    Args:
        clock: The time.
        order: Returns the queues in the order in which they are served; others follow in order of their first message.
        on_push: Called with each message that is queued.
    """

    def __init__(
        self, clock: ManualClock, order: Callable[[], Sequence[str]], on_push: Callable[[Message], None]
    ) -> None:
        self.clock, self._order, self._on_push = clock, order, on_push
        self._lock = threading.RLock()
        self._number = 0
        self._ready: dict[str, list[deque[QueuedMessage]]] = {}
        self._delayed: list[QueuedMessage] = []
        self._held: dict[str, QueuedMessage] = {}
        self.values = StoredValues(clock)
        """The results."""
        self.chords = OpenChords()

    def push(self, messages: Iterable[Message]) -> None:
        """Queue ``messages``, in order."""
        with self._lock:
            for message in messages:
                self._put(message.queue, message.priority, message.due_ms, message.blob)
                self._on_push(message)

    def _put(self, queue: str, priority: int, due_ms: int, blob: bytes, *, in_front: bool = False) -> None:
        self._number += 1
        waiting = QueuedMessage(due_ms, self._number, queue, priority, blob)
        level = self._levels(queue)[priority]  # also for one that is not due, as it decides the order of queues
        if due_ms and not self.clock.has_come(due_ms):
            insort(self._delayed, waiting)
            return
        if in_front:
            level.appendleft(waiting)
        else:
            level.append(waiting)

    def _levels(self, queue: str) -> list[deque[QueuedMessage]]:
        return self._ready.setdefault(queue, [deque() for _ in range(HIGHEST_PRIORITY + 1)])

    def _promote(self) -> None:
        while self._delayed and self.clock.has_come(self._delayed[0].due_ms):
            message = self._delayed.pop(0)
            self._levels(message.queue)[message.priority].append(message)

    def claim(self) -> Claimed | None:
        """Return the next message that is due: by the order of queues, then priority, then age; ``None``: none is."""
        with self._lock:
            self._promote()
            message = next(self._in_order(), None)
            if message is None:
                return None
            self._levels(message.queue)[message.priority].popleft()
            tag = f"{message.number}.0:{message.priority}:{message.queue}"
            self._held[tag] = message
            return Claimed(tag, message.queue, message.priority, unseal(message.blob), LEASE)

    def _in_order(self) -> Any:
        ranks = {queue: rank for rank, queue in enumerate(self._order())}
        for queue in sorted(self._ready, key=lambda queue: ranks.get(queue, len(ranks))):
            for level in reversed(self._ready[queue]):
                yield from level

    def waiting(self) -> list[QueuedMessage]:
        """Return the messages that wait: those that are due in the order they will run, then the others by time."""
        with self._lock:
            self._promote()
            return [*self._in_order(), *self._delayed]

    def next_due_ms(self) -> int | None:
        """Return when the next delayed message is due; ``None``: there is none."""
        with self._lock:
            return self._delayed[0].due_ms if self._delayed else None

    def purge(self, queue: str | None = None) -> int:
        """Drop all messages, or those of ``queue``; return how many."""
        with self._lock:
            dropped = [each for each in self.waiting() if queue in (None, each.queue)]
            self._delayed = [each for each in self._delayed if each not in dropped]
            for name, levels in self._ready.items():
                for level in levels if queue in (None, name) else ():
                    level.clear()
            return len(dropped)

    def is_held(self, tag: str) -> bool:
        """Return whether a claim is not settled yet."""
        return tag in self._held

    def give_back(self, tag: str, delay_seconds: float = 0.0) -> None:
        """Return a claimed message to its queue."""
        with self._lock:
            message = self._held.pop(tag, None)
            if message is not None:
                count = int.from_bytes(message.blob[_DELIVERIES], "big") + 1
                blob = message.blob[:2] + count.to_bytes(2, "big") + message.blob[4:]
                due_ms = self.clock.now_ms() + int(delay_seconds * 1_000) if delay_seconds else 0
                self._put(message.queue, message.priority, due_ms, blob)

    def settle(self, tag: str, settlement: Settlement | None) -> None:
        """End a claim together with everything its run left, in the order of ``Settlement.steps``."""
        with self._lock:
            message = self._held.pop(tag, None)
            if message is None or settlement is None:
                return
            for chord in settlement.chords:
                self.chords.begin(chord)
            for part in settlement.parts:
                self.count_part(part, message.queue)
            for chord_id in settlement.finished:
                self.chords.forget(chord_id)
            self.push(settlement.messages)
            for result in settlement.results:
                self.values.store(_bytes(result.key), _bytes(result.value), result.expires_seconds)

    def count_part(self, part: ChordPart, queue: str) -> None:
        """Count a part of a chord; the last one puts the message that finishes it in front of ``queue``."""
        with self._lock:
            if finish := self.chords.count(part):
                self._put(queue, unseal(finish).priority, 0, finish, in_front=True)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


class MemoryProducer(Producer):
    """Pushes into a ``MemoryEngine``."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine
        self.clock = engine.clock

    def __getattr__(self, name: str) -> NoReturn:
        if name == "link":
            raise NotInKit("this")
        raise AttributeError(name)

    def push(self, messages: Sequence[Message], deadline: float | None = None) -> list[Taken]:  # noqa: ARG002
        """Queue ``messages``."""
        self._engine.push(messages)
        return []

    push_now = push

    def note_queues(self, queues: Iterable[str]) -> None:
        """Do nothing: nobody watches them."""

    def known_clock(self) -> ManualClock:
        """Return the clock."""
        return self._engine.clock


class MemoryNode:
    """The claims of the one node of a test, with the interface of ``engine.node.Node`` that requests use."""

    epoch = LEASE

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine, self.clock = engine, engine.clock
        self.held = _Held(engine)
        self.buried: list[str] = []

    def settle(self, tag: str, settlement: Settlement | None = None) -> None:
        """Settle a claim."""
        self._engine.settle(tag, settlement)

    def bury(self, tag: str, reason: str, detail: str, settlement: Settlement | None = None) -> None:
        """Settle a claim whose message becomes a dead letter."""
        self.buried.append(f"{reason}: {detail}")
        self._engine.settle(tag, settlement)

    def give_back(
        self,
        tags: Sequence[str],
        kind: str = "unstarted",  # noqa: ARG002
        delay_seconds: float = 0.0,
        pauses: Any = (),  # noqa: ARG002 - limits hold nothing back here
    ) -> None:
        """Return messages to their queues."""
        for tag in tags:
            self._engine.give_back(tag, delay_seconds)

    def publish(self, commands: Any) -> bool:  # noqa: ARG002 - nobody listens
        """Drop events."""
        return True


class _Held:
    """The tags of unsettled claims, each with the time of its claim."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    def __contains__(self, tag: object) -> bool:
        return isinstance(tag, str) and self._engine.is_held(tag)

    def get(self, tag: str) -> float | None:
        return monotonic() if tag in self else None


def _no_connection() -> NoReturn:
    raise NotInKit("this")


class MemoryRuntime(Runtime):
    """The producer and the node of a test."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.connect = _no_connection
        self.producer = MemoryProducer(engine)
        node = MemoryNode(engine)
        self.node = node  # type: ignore[assignment]  # what requests use of one
        self.buried = node.buried
        """Why messages became dead letters, in order."""
        self.is_inherited = False
