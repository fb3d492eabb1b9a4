"""Delayed messages: count, list, cancel, reschedule by id."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import NamedTuple

from taskapp.engine.clock import Clock, Reading, steady_ms
from taskapp.engine.envelope import unseal
from taskapp.engine.task_notes import Notes
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link

PAGE = 500
PLACES = (("delayed", "delayed_messages"), ("lane_delayed", "limited_messages"))
"""Keys of the due times and of the messages: those without limits, and those with."""


class Delayed(NamedTuple):
    """A message that waits until it is due."""

    id: str
    task: str
    queue: str
    priority: int
    due_at: float
    """Unix seconds, by the engine's time."""


class DelayedMessages:
    """The delayed messages of some queues; cancellations are recorded in ``notes``, if given."""

    def __init__(self, link: Link, prefix: str, queues: tuple[str, ...], notes: Notes | None = None) -> None:
        self._link = link
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._queues = queues
        self._notes = notes
        self._clock = Clock()

    def count(self) -> dict[str, int]:
        """Return the number of delayed messages by queue."""
        commands = [("ZCARD", self._keys(kind, queue)) for queue in self._queues for kind, _ in PLACES]
        answers = self._link.pipeline(commands)
        return {queue: sum(pair) for queue, *pair in zip(self._queues, answers[::2], answers[1::2], strict=True)}

    def soonest(self, queue: str, limit: int = 100) -> list[Delayed]:
        """Return up to ``limit`` messages of ``queue``, soonest first."""
        both = merge(*(self._pages(queue, limit, *place) for place in PLACES), key=lambda each: each.due_at)
        return list(islice(both, limit))

    def _pages(self, queue: str, limit: int, dues_key: str, messages_key: str) -> Iterator[Delayed]:
        for start in range(0, limit, PAGE):
            stop = min(start + PAGE, limit) - 1
            found = self._link.command("ZRANGE", self._keys(dues_key, queue), start, stop, "WITHSCORES")
            ids, dues = found[::2], found[1::2]
            if not ids:
                return
            blobs = self._link.command("HMGET", self._keys(messages_key, queue), *ids)
            for identity, due, blob in zip(ids, dues, blobs, strict=True):
                envelope = unseal(blob or b"")
                yield Delayed(identity.decode(), envelope.task, queue, envelope.priority, float(due) / 1_000)
            if len(ids) < PAGE:
                return

    def cancel(self, message_id: str) -> bool:
        """Delete a delayed message, or one with limits that waits, permanently; return whether it existed."""
        was_there = any(self._link.run("cancel", self._prefix, 0, queue, message_id) for queue in self._queues)
        if was_there and self._notes is not None:
            self._notes.cancelled(message_id)
        return was_there

    def reschedule(self, message_id: str, delay_seconds: float) -> bool:
        """Make a message due ``delay_seconds`` from now; return whether it existed."""
        due_ms = self._now_ms() + int(delay_seconds * 1_000)
        return any(self._link.run("reschedule", self._prefix, 0, queue, message_id, due_ms) for queue in self._queues)

    def _now_ms(self) -> int:
        sent_ms = steady_ms()
        answer = self._link.run("push", self._prefix, 0, "", 0)
        self._clock.observe(Reading(*answer), sent_ms, steady_ms())
        return int(answer[0])
