"""Delayed messages: count, list, cancel, reschedule by id."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import NamedTuple

from taskapp.engine.clock import Clock, Reading, steady_ms
from taskapp.engine.envelope import due_again, named_in_json, unseal
from taskapp.engine.task_notes import Notes
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link

PAGE = 500
PLACES = (("delayed", "delayed_messages"), ("lane_delayed", "limited_messages"))
"""Keys of the due times and of the messages: those without limits, and those with."""
TAGS = "*.*:*:*"
"""Pattern of the tags of claims, under which messages of stock Celery are stored: they have no id in their envelope."""


class Delayed(NamedTuple):
    """A message that waits until it is due."""

    id: str
    task: str
    queue: str
    priority: int
    due_at: float
    """Unix seconds, by the engine's time."""


class DelayedMessages:
    """The delayed messages of these and all used queues; cancellations are recorded in ``notes``, if given."""

    def __init__(self, link: Link, prefix: str, queues: tuple[str, ...], notes: Notes | None = None) -> None:
        self._link = link
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._queues = queues
        self._notes = notes
        self._clock = Clock()

    def count(self) -> dict[str, int]:
        """Return the number of delayed messages by queue."""
        queues = self._all_queues()
        commands = [("ZCARD", self._keys(kind, queue)) for queue in queues for kind, _ in PLACES]
        answers = self._link.pipeline(commands)
        return {queue: sum(pair) for queue, *pair in zip(queues, answers[::2], answers[1::2], strict=True)}

    def _all_queues(self) -> list[str]:
        known = self._link.command("SMEMBERS", self._keys("queues"))
        return list(dict.fromkeys([*self._queues, *sorted(queue.decode() for queue in known)]))

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
                envelope, stored = unseal(blob or b""), identity.decode()
                named, task = (stored, envelope.task) if envelope.task else named_in_json(envelope.body)
                yield Delayed(named or stored, task, queue, envelope.priority, float(due) / 1_000)
            if len(ids) < PAGE:
                return

    def cancel(self, message_id: str) -> bool:
        """Delete a delayed message, or one with limits that waits, permanently; return whether it existed."""
        was_there = self._run("cancel", message_id) or any(
            self._link.run("cancel", self._prefix, 0, *place) for place in self._adopted(message_id)
        )
        if was_there and self._notes is not None:
            self._notes.cancelled(message_id)
        return was_there

    def reschedule(self, message_id: str, delay_seconds: float) -> bool:
        """Make a message due ``delay_seconds`` from now; return whether it existed."""
        due_ms = self._now_ms() + int(delay_seconds * 1_000)
        if self._run("reschedule", message_id, due_ms):
            return True
        for queue, stored in self._adopted(message_id):
            blob = self._link.command("HGET", self._keys("delayed_messages", queue), stored) or b""
            again = due_again(blob, due_ms / 1_000)
            if self._link.run("reschedule", self._prefix, 0, queue, stored, due_ms, again):
                return True
        return False

    def _run(self, operation: str, message_id: str, *args: int) -> bool:
        """Run a script on a message in any queue; return whether it existed."""
        return any(self._link.run(operation, self._prefix, 0, queue, message_id, *args) for queue in self._all_queues())

    def _adopted(self, task_id: str) -> Iterator[tuple[str, str]]:
        """Yield queue and stored id of messages of stock Celery for a task."""
        for queue in self._all_queues():
            at = b"0"
            while at:
                at, page = self._link.command("ZSCAN", self._keys("delayed", queue), at, "MATCH", TAGS, "COUNT", PAGE)
                stored = page[::2]
                names = self._keys("delayed_messages", queue)
                for identity, blob in zip(
                    stored, self._link.command("HMGET", names, *stored) if stored else (), strict=True
                ):
                    if named_in_json(unseal(blob or b"").body)[0] == task_id:
                        yield queue, identity.decode()
                at = at if at != b"0" else b""

    def _now_ms(self) -> int:
        sent_ms = steady_ms()
        answer = self._link.run("push", self._prefix, 0, "", 0)
        self._clock.observe(Reading(*answer), sent_ms, steady_ms())
        return int(answer[0])
