"""Finds the message of a task by its id, in steps short enough not to delay other clients.

No index says where a message is, because every task would pay for it. Instead the server searches
a few thousand messages per step, in the order in which a message travels; one that
moves forward during the search is met later, and one that moves back is found by the second pass.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from taskapp.engine.dead_letters import DeadLetter, DeadLetters
from taskapp.engine.envelope import Envelope, unseal
from taskapp.queues import PRIORITIES
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link

ENDS = (100_000, 10_000, 10_000)
"""Number of messages at both ends of a long ready list to search again, for each further pass: a node that returns its
messages puts them there."""
SEPARATOR = "\x1f"
"""Between the parts of a gate, and of a unique key."""
FIRST, BYTES = 4, 2 << 20
"""Messages to search in the first step; bytes to search per step once the size of messages is known."""
ENTRIES = {"list": 3_000, "parked": 3_000, "hash": 1_000, "claims": 1_000, "letters": 700, "numbers": 700, "types": 300}
"""Entries to search per step, by kind of key: about two milliseconds of work. More would delay other clients; fewer
would spend a long search on round trips and on walking into long lists."""

Part = tuple[int, int | None]
"""Range of a list: start, from the right if below 0, and stop; ``None``: the end. A start beyond the left end of the
list gives nothing, because the range from the left then covers all of it."""
WHOLE: Sequence[Part] = ((0, None),)


class Place(StrEnum):
    """State of a message in the engine."""

    DELAYED = "delayed"
    READY = "ready"
    BLOCKED = "blocked"
    PARKED = "parked"
    LEASED = "leased"
    DEAD = "dead"


class Gate(NamedTuple):
    """The key of a limit at which messages wait."""

    kind: str
    """``rate``, ``slots`` or ``unique``."""
    name: str
    """Name of the limit; empty for a unique key."""
    key: str
    """For a unique key: its task type and its value."""

    @property
    def limit(self) -> str:
        """Name of the limit; for a unique key, its task type."""
        return self.key.partition(SEPARATOR)[0] if self.kind == "unique" else self.name

    @property
    def value(self) -> str:
        """The key without a task type; empty: one for all."""
        return self.key.partition(SEPARATOR)[2] if self.kind == "unique" else self.key


class Found(NamedTuple):
    """A message and its place."""

    place: Place
    queue: str
    priority: int
    envelope: Envelope
    at: float = 0.0
    """When it is due, may run, was parked or was buried, or when its lease ends: Unix seconds by the engine's time;
    0: unknown."""
    epoch: str = ""
    """Epoch of the node that holds it."""
    node: str = ""
    """Name of that node, if it has one."""
    is_lost: bool = False
    """Whether that node's lease has ended, so that the message is about to be returned."""
    letter: DeadLetter | None = None
    gate: Gate | None = None
    """What a blocked message waits for."""


class Search:
    """Searches the broker for messages.

    Args:
        link: Connection to the broker; free for other calls between two steps.
        prefix: Prefix of all keys.
        queues: Queues of the deployment; others that have been used are added.
        on_step: Called after each step with the number of messages searched so far.
    """

    def __init__(
        self, link: Link, prefix: str, queues: Iterable[str], on_step: Callable[[int], None] = lambda _: None
    ) -> None:
        self._link = link
        self._on_step, self._looked_at = on_step, 0
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._queues = tuple(queues)
        self._known_letters: dict[str, int] = {}

    def find(self, task_id: str) -> Found | None:
        """Return the message of ``task_id``; ``None`` if there is none.

        Takes a second or two per million messages, in steps of a few milliseconds.

        Raises:
            redis.RedisError: The broker cannot be reached, or refuses.
        """
        wanted = _Wanted(task_id)
        queues = self._all_queues()
        self._known_letters.clear()
        # Most lookups are about these, and searching them costs next to nothing.
        if found := self._delayed(wanted, queues) or self._limited(wanted, queues) or self._leased(wanted, queues):
            return found
        journey = (self._delayed, self._limited, self._ready, self._parked, self._leased, self._dead)
        for look in journey:
            if found := look(wanted, queues):
                return found
        for most in ENDS:
            # A message that moved back to a place already searched is at one end of its list.
            ends = partial(self._ready, parts=((0, most), (-most, None)))
            for look in (self._delayed, self._limited, ends, self._parked, self._leased, self._dead):
                if found := look(wanted, queues):
                    return found
        return self._delayed_of_others(wanted, queues)

    def _all_queues(self) -> list[str]:
        known = self._link.command("SMEMBERS", self._keys("queues"))
        return list(dict.fromkeys([*self._queues, *sorted(_text(queue) for queue in known)]))

    def _delayed(self, wanted: _Wanted, queues: list[str]) -> Found | None:
        commands = [("HGET", self._keys("delayed_messages", queue), wanted.id) for queue in queues]
        for queue, blob in zip(queues, self._link.pipeline(commands), strict=True):
            if isinstance(blob, bytes):
                due = self._link.command("ZSCORE", self._keys("delayed", queue), wanted.id)
                envelope = unseal(blob)
                if due is not None:
                    return Found(Place.DELAYED, queue, envelope.priority, envelope, float(due) / 1_000)
        return None

    def _limited(self, wanted: _Wanted, queues: list[str]) -> Found | None:
        answers = [self._link.run("find_limited", self._prefix, 0, queue, wanted.id) for queue in queues]
        for queue, (place, blob, at, gate) in zip(queues, answers, strict=True):
            if place:
                envelope = unseal(blob)
                return Found(
                    Place(_text(place)), queue, envelope.priority, envelope, float(at or 0) / 1_000,
                    gate=gate_in(_text(gate)) if gate else None,
                )  # fmt: skip
        return None

    def _delayed_of_others(self, wanted: _Wanted, queues: list[str]) -> Found | None:
        """Search the delayed messages for one from stock Celery, stored under its claim's tag for lack of an id."""
        for queue in queues:
            messages = self._keys("delayed_messages", queue)
            hit = self._scan(self._keys("delayed", queue), "claims", wanted, messages)
            due = self._link.command("ZSCORE", self._keys("delayed", queue), hit[0]) if hit is not None else None
            if hit is not None and due is not None:
                envelope = unseal(hit[1])
                return Found(Place.DELAYED, queue, envelope.priority, envelope, float(due) / 1_000)
        return None

    def _ready(self, wanted: _Wanted, queues: list[str], *, parts: Sequence[Part] = WHOLE) -> Found | None:
        names = (self._keys.kombu, self._keys.ready)  # a message that is adopted during the search is met later
        levels = [(queue, priority) for queue in queues for _ in names for priority in reversed(PRIORITIES)]
        keys = [name(queue, priority) for queue in queues for name in names for priority in reversed(PRIORITIES)]
        there = self._link.pipeline([("EXISTS", key) for key in keys])
        for (queue, priority), key, exists in zip(levels, keys, there, strict=True):
            for start, stop in parts if exists else ():
                hit = self._scan(key, "list", wanted, start=start, stop=stop)
                if hit is not None:
                    return Found(Place.READY, queue, priority, unseal(hit[1]))
        return None

    def _parked(self, wanted: _Wanted, queues: list[str]) -> Found | None:
        for queue in queues:
            long: list[bytes] = []
            hit = self._scan(self._keys("parked", queue), "types", wanted, queue, long=long)
            for name in long if hit is None else ():
                hit = hit or self._scan(self._keys("parked_messages", queue, _text(name)), "parked", wanted)
            if hit is not None:
                since_ms, envelope = struct.unpack(">d", hit[1][:8])[0], unseal(hit[1][8:])
                return Found(Place.PARKED, queue, envelope.priority, envelope, since_ms / 1_000)
        return None

    def _leased(self, wanted: _Wanted, _queues: list[str]) -> Found | None:
        flat = self._link.command("ZRANGE", self._keys("leases"), 0, -1, "WITHSCORES")
        epochs = flat[::2]
        held = self._link.pipeline([("HLEN", self._keys("leased", _text(epoch))) for epoch in epochs])
        for epoch, ends, number in zip(epochs, flat[1::2], held, strict=True):
            if not number:
                continue
            hit = self._scan(self._keys("leased", _text(epoch)), "hash", wanted)
            if hit is not None:
                _, priority, queue = hit[0].split(":", 2)
                is_lost = float(ends) <= self._now_ms()
                return Found(
                    Place.LEASED, queue, int(priority), unseal(hit[1]), float(ends) / 1_000, _text(epoch),
                    self._name_of(epoch), is_lost,
                )  # fmt: skip
        return None

    def _name_of(self, epoch: bytes) -> str:
        about = self._link.command("HGET", self._keys("nodes"), epoch)
        try:
            return str(json.loads(about)["name"]) if about else ""
        except (ValueError, KeyError, TypeError):
            return ""

    def _dead(self, wanted: _Wanted, queues: list[str]) -> Found | None:
        letters = DeadLetters(self._link, self._prefix)
        for queue in queues:
            about, raw = self._keys("dead_about", queue), self._keys("dead_raw", queue)
            newest = int(self._link.command("GET", self._keys("dead_number", queue)) or 0)
            known = self._known_letters.get(queue)
            if known is None:
                hit = self._scan(about, "letters", wanted, raw)
            else:
                # Letters are numbered in order of burial, so only newer ones need to be searched.
                hit = self._scan(about, "numbers", wanted, raw, start=known + 1, stop=newest + 1)
            if hit is None:
                self._known_letters[queue] = newest
                continue
            letter = letters.get(queue, int(hit[0]))
            if letter is not None:
                return Found(
                    Place.DEAD, queue, letter.priority, unseal(letter.raw), letter.buried_at, letter=letter
                )  # fmt: skip
        return None

    def _scan(
        self, key: str, kind: str, wanted: _Wanted, other: str = "", *, start: int = 0, stop: int | None = None,
        long: list[bytes] | None = None,
    ) -> tuple[str, bytes] | None:  # fmt: skip
        """Return field (or position) and value of the wanted message in ``key``, for a list between two positions."""
        at, count = str(start).encode(), FIRST
        while at and (stop is None or int(at) < stop):
            at, seen, size, unseen, *hit = self._link.run(
                "find", self._prefix, 0, key, kind, at, wanted.id, *wanted.in_json, other, count
            )
            if hit:
                return _text(hit[0]), hit[1]
            if long is not None:
                long += unseen
            self._looked_at += seen
            self._on_step(self._looked_at)
            if seen:
                count = max(1, min(BYTES * seen // max(size, 1), 8 * count, ENTRIES[kind]))
        return None

    def _now_ms(self) -> int:
        # An empty push returns the engine's time.
        return int(self._link.run("push", self._prefix, 0, "", 0)[0])


def gate_in(text: str) -> Gate:
    """Return a gate as scripts write it."""
    kind, name, key = text.split(SEPARATOR, 2)
    return Gate("rate" if kind == "R" else "slots" if name else "unique", name, key)


class _Wanted:
    def __init__(self, task_id: str) -> None:
        self.id = task_id
        written = json.dumps(task_id)
        self.in_json = (f'"id": {written}', f'"id":{written}')


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
