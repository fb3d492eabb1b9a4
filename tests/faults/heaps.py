"""Very many of one thing in Redis, put there as the engine would, and how long scripts take beside it."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from redis.connection import Connection

from taskapp.broker.envelope import seal
from taskapp.redis import Keys, Link

AT_ONCE = 5_000
NODES, TYPES_EACH = 1_000, 50
QUEUE, KEYS = "default", Keys("")
LONG_MS = 4_000_000
ID = "%036d"
BODY = b"." * 200

FILL = """
local first, count, before, behind, now = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
for i = first, first + count - 1 do
  local id = string.format('%036d', i)
  local blob = before .. id .. behind
  PUT
end
"""
ABOUT = {
    "reason": "failed", "queue": QUEUE, "priority": 0, "deliveries": 1, "crashes": 0, "task": "shop.none",
    "node": "node@host", "error": "ValueError: no", "id": "", "buried_at": 0,
}  # fmt: skip
PLACES = {
    "ready": "redis.call('LPUSH', KEYS[1], blob)",
    "delayed": "redis.call('ZADD', KEYS[2], now + 3600000 + i, id) redis.call('HSET', KEYS[3], id, blob)",
    "due": "redis.call('ZADD', KEYS[2], now - 1000 + i / 10000, id) redis.call('HSET', KEYS[3], id, blob)",
    "parked": """
        local task, since = 'shop.v' .. i, now + tonumber(ARGV[6])
        redis.call('HSET', KEYS[4], task, string.format('%.0f', since))
        redis.call('RPUSH', KEYS[4] .. ':' .. task, struct.pack('>d', since) .. blob)""",
    "dead": """
        redis.call('ZADD', KEYS[5], now - 1000 + i / 1024, i + 1) redis.call('HSET', KEYS[6], i + 1, blob)
        redis.call('HSET', KEYS[7], i + 1, (string.gsub(ARGV[7], '"id": ""', '"id":"' .. id .. '"')))""",
    "leased": "redis.call('HSET', KEYS[8], (1000000 + i) .. '.0:0:default', blob)",
    "results": """redis.call('SET', 'celery-task-meta-' .. id, '{"status": "SUCCESS", "result": 1}')""",
}
"""How one of each is written."""


class TimedLink(Link):
    """A connection that notes how long the server took for each script, by its own clock."""

    def __init__(self, port: int) -> None:
        super().__init__(partial(Connection, port=port, protocol=2, socket_timeout=60))
        self.times_ms: dict[str, list[float]] = defaultdict(list)
        self._looking = redis.Redis(port=port)

    def run(self, name: str, *args: Any) -> Any:
        """Run a script."""
        return self.timed(name, name, *args)

    def timed(self, label: str, name: str, *args: Any) -> Any:
        """Run a script, and note its time under ``label``."""
        before = self._spent_ms()
        answer = super().run(name, *args)
        self.times_ms[label].append(self._spent_ms() - before)
        return answer

    def medians(self) -> dict[str, float]:
        """Return the median time of each script so far, ms, and forget them."""
        found = {name: statistics.median(times) for name, times in self.times_ms.items()}
        self.times_ms.clear()
        return found

    def _spent_ms(self) -> float:
        stats: Any = self._looking.info("commandstats")
        return sum(float(stats.get(f"cmdstat_{name}", {}).get("usec", 0)) for name in ("eval", "evalsha")) / 1_000


class Heap:
    """One server with 1,000 nodes, and ``count`` of what ``fill`` is told."""

    def __init__(self, port: int, count: int) -> None:
        self.count = count
        self.client = redis.Redis(port=port, socket_timeout=60)
        self.link = TimedLink(port)
        self.epoch, self.other = (f"{number:032x}" for number in (1, 2))
        self._claims = 0

    def begin(self) -> None:
        """Empty the server and open the nodes."""
        self.client.flushall(asynchronous=True)
        types = [word for number in range(TYPES_EACH) for word in (f"type.{number}", "thread")]
        about = json.dumps({"name": "node@host", "queues": [QUEUE], "slots": {"thread": 8}, "used": {}})
        for number in range(NODES):
            Link.run(self.link, "open", "", 0, f"{number:032x}", 10 * LONG_MS, about, *types)

    def fill(self, place: str, *, since_ms: int = 0, epoch: str = "") -> None:
        """Put ``count`` into ``place``."""
        empty = seal(ID % 0, "shop.none", 0, BODY)
        before, behind = empty[:7], empty[7 + len(ID % 0) :]
        keys = [
            QUEUE, KEYS("delayed", QUEUE), KEYS("delayed_messages", QUEUE), KEYS("parked", QUEUE),
            KEYS("dead", QUEUE, "failed"), KEYS("dead_raw", QUEUE), KEYS("dead_about", QUEUE),
            KEYS("leased", epoch or self.epoch),
        ]  # fmt: skip
        now_ms = int(time.time() * 1_000)
        script = FILL.replace("PUT", PLACES[place])
        for first in range(0, self.count, AT_ONCE):
            some = min(AT_ONCE, self.count - first)
            self.client.eval(
                script, len(keys), *keys, first, some, before, behind, now_ms, since_ms, json.dumps(ABOUT)
            )  # fmt: skip
        self.client.set(KEYS("dead_number", QUEUE), self.count)
        self.client.sadd(KEYS("queues"), QUEUE)

    def claim(self, want: int = 10) -> list[str]:
        """Claim, and return the tags."""
        self._claims += 1
        answer = self.link.run("claim", "", 0, self.epoch, self._claims, want, 0, "", 1, QUEUE)
        return [tag.decode() for tag in answer[6::2]]

    def push(self, count: int = 1, due_ms: int = 0) -> None:
        """Push ``count`` messages at once."""
        blobs = [seal(f"new-{number}", "shop.none", 0, BODY) for number in range(count)]
        if due_ms:
            self.link.timed("push delayed", "push", "", 0, "", 0, 0, QUEUE, 0, 0, due_ms, "new-0", blobs[0])
        else:
            self.link.timed(f"push of {count}", "push", "", 0, "", 0, 0, QUEUE, 0, count, *blobs)

    def settle(self, tags: list[str], *step: Any) -> None:
        """Finish claims."""
        self.link.run("settle", "", 0, self.epoch, 10_000_000, "node", *[x for tag in tags for x in ("T", tag, *step)])

    def beat(self) -> None:
        """Beat once, with a lease that lasts."""
        lease_ms = silent_ms = 10 * LONG_MS
        limits = (3, 10_000_000, 3_600_000)
        self.link.run("beat", "", 0, self.epoch, lease_ms, *limits, silent_ms, "{}")

    def end_lease(self, epoch: str) -> None:
        """Let a lease end now."""
        self.client.zadd(KEYS("leases"), {epoch: 1}, xx=True)


def repeat(times: int, *steps: Callable[[], Any]) -> None:
    """Do each of ``steps`` so many times."""
    for _ in range(times):
        for step in steps:
            step()
