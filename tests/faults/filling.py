"""Very many of one thing in Redis, written as the engine would, in seconds rather than minutes.

A thousand at a time go into each key with one command. That takes a third of what a script does, which would make a
string of each word twice.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis

from taskapp.engine.envelope import seal
from taskapp.redis.keys import Keys

QUEUE, KEYS = "default", Keys("")
QUEUE_OF_NOBODY, EPOCH_OF_NOBODY = "nobodys", "f" * 32
AT_ONCE = 1_000
HOUR_MS = 3_600_000
ID = "%036d"
BODY = b"." * 200
SUCCESS = '{"status": "SUCCESS", "result": 1}'
ABOUT = {
    "reason": "failed", "queue": QUEUE, "priority": 0, "deliveries": 1, "crashes": 0, "task": "shop.none",
    "node": "node@host", "error": "ValueError: no", "id": "", "buried_at": 0,
}  # fmt: skip

Command = tuple[Any, ...]


class Chunk:
    """Messages that are written together.

    Args:
        numbers: Of each.
        queue: Whose they are.
        epoch: Of the node that holds what is leased.
        since_ms: Since when what is parked is, before or after now.
    """

    BEFORE, BEHIND = seal(ID % 0, "shop.none", 0, BODY).split(b"%036d" % 0)
    ABOUT_BEFORE, _, ABOUT_BEHIND = json.dumps(ABOUT, separators=(",", ":")).partition('"id":""')

    def __init__(self, numbers: range, queue: str, epoch: str, since_ms: int) -> None:
        self.numbers, self.queue, self.epoch = numbers, queue, epoch
        self.now_ms = int(time.time() * 1_000)
        self.since_ms = self.now_ms + since_ms
        self.ids = [ID % number for number in numbers]
        self.blobs = [b"%b%b%b" % (self.BEFORE, task_id.encode(), self.BEHIND) for task_id in self.ids]

    def ready(self) -> Iterator[Command]:
        yield "LPUSH", KEYS.ready(self.queue), *self.blobs

    def delayed(self) -> Iterator[Command]:
        yield from self._delayed_until(self.now_ms + HOUR_MS, 1)

    def due(self) -> Iterator[Command]:
        yield from self._delayed_until(self.now_ms - 1_000, 1e-4)

    def parked(self) -> Iterator[Command]:
        key, since = KEYS("parked", self.queue), struct.pack(">d", self.since_ms)
        types = [f"shop.v{number}" for number in self.numbers]
        yield "HSET", key, *_flat((name, self.since_ms) for name in types)
        for name, blob in zip(types, self.blobs, strict=True):
            yield "RPUSH", KEYS("parked_messages", self.queue, name), since + blob

    def dead(self) -> Iterator[Command]:
        letters = [number + 1 for number in self.numbers]
        at_ms = self.now_ms - 1_000
        about = [f'{self.ABOUT_BEFORE}"id":"{task_id}"{self.ABOUT_BEHIND}' for task_id in self.ids]
        yield "ZADD", KEYS("dead", self.queue, "failed"), *_flat((at_ms + letter / 1_024, letter) for letter in letters)
        yield "HSET", KEYS("dead_raw", self.queue), *_flat(zip(letters, self.blobs, strict=True))
        yield "HSET", KEYS("dead_about", self.queue), *_flat(zip(letters, about, strict=True))
        yield "SET", KEYS("dead_number", self.queue), letters[-1]

    def leased(self) -> Iterator[Command]:
        tags = [f"{1_000_000 + number}.0:0:{self.queue}" for number in self.numbers]
        yield "HSET", KEYS("leased", self.epoch), *_flat(zip(tags, self.blobs, strict=True))

    def results(self) -> Iterator[Command]:
        yield "MSET", *_flat((f"celery-task-meta-{task_id}", SUCCESS) for task_id in self.ids)

    def _delayed_until(self, first_ms: int, step_ms: float) -> Iterator[Command]:
        dues = [first_ms + step_ms * number for number in self.numbers]
        yield "ZADD", KEYS("delayed", self.queue), *_flat(zip(dues, self.ids, strict=True))
        yield "HSET", KEYS("delayed_messages", self.queue), *_flat(zip(self.ids, self.blobs, strict=True))


def _flat(pairs: Any) -> Iterator[Any]:
    for pair in pairs:
        yield from pair


PLACES: dict[str, Callable[[Chunk], Iterator[Command]]] = {
    "ready": Chunk.ready, "delayed": Chunk.delayed, "due": Chunk.due, "parked": Chunk.parked, "dead": Chunk.dead,
    "leased": Chunk.leased, "results": Chunk.results,
}  # fmt: skip
"""What writes them."""


def fill(client: redis.Redis, place: str, count: int, *, epoch: str, since_ms: int = 0, beside: int = 0) -> None:
    """Put ``count`` into ``place``, and ``beside`` that no script looks at evenly among them."""
    chunks = -(-(count + beside) // AT_ONCE)
    for number in range(chunks):
        pipeline = client.pipeline(transaction=False)
        for chunk in (
            Chunk(_part(0, count, number, chunks), QUEUE, epoch, since_ms),
            Chunk(_part(count, beside, number, chunks), QUEUE_OF_NOBODY, EPOCH_OF_NOBODY, since_ms),
        ):
            for command in PLACES[place](chunk) if chunk.numbers else ():
                pipeline.execute_command(*command)
        pipeline.execute()
    client.sadd(KEYS("queues"), QUEUE)


def _part(first: int, count: int, number: int, parts: int) -> range:
    return range(first + count * number // parts, first + count * (number + 1) // parts)
