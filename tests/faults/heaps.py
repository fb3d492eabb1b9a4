"""Very many of one thing in Redis, stored as the engine would, and how long scripts take with it."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import redis
from redis.connection import Connection

from taskapp.engine.envelope import seal
from taskapp.engine.search import ENTRIES
from taskapp.redis.link import Link
from tests.faults.filling import BODY, KEYS, QUEUE, fill

OUTSIDER, CACHE_BYTES = "of nobody", 64 << 20
"""What is read to make the processor forget the rest, larger than its caches."""
NODES, TYPES_EACH = 1_000, 50
LONG_MS = 4_000_000
EPOCH, OTHER_EPOCH = (f"{number:032x}" for number in (1, 2))

TYPES = [word for number in range(TYPES_EACH) for word in (f"type.{number}", "thread")]
ABOUT_NODE = json.dumps({"name": "node@host", "queues": [QUEUE], "slots": {"thread": 8}, "used": {}})


class TimedLink(Link):
    """A connection that notes how long the server was busy with each script.

    The shorter of two times: by the server's clock, which runs on while a busy machine lets the server wait, and of its
    processor, which also counts reading the command and sending the answer. The caches of the processor are cold each
    time, as on a server with other work: else few would be timed from the cache, very many from memory.
    """

    def __init__(self, port: int) -> None:
        super().__init__(partial(Connection, port=port, protocol=2, socket_timeout=60))
        self.times_ms: dict[str, list[float]] = defaultdict(list)
        self.timed_steps = 1
        """One in this many steps of a search is timed."""
        self.companion: TimedLink | None = None
        """Does a step of its own search after each one that was timed here."""
        self._steps = 0
        self._known_steps: dict[str, deque[tuple[Any, ...]]] = defaultdict(deque)
        self._looking = Link(self.connect)

    def run(self, name: str, *args: Any) -> Any:
        """Run a script."""
        return self._step(*args) if name == "find" else self.timed(name, name, *args)

    def _step(self, *args: Any) -> Any:
        self._steps += 1
        if self._steps % self.timed_steps:
            return super().run("find", *args)
        kind, most = args[3], args[-1]
        label = f"find in {kind}"
        answer = self.timed(label, "find", *args)
        # The first steps of a search are small, and looking where nothing is costs nothing.
        if most < ENTRIES[kind] or answer[1] < most / 2:
            self.times_ms[label].pop()
        elif self.companion is not None:
            self.companion.repeat_step(label)
        else:
            self._known_steps[label].append(args)
        return answer

    def repeat_step(self, label: str) -> None:
        """Do a step of its last search again, the next in turn."""
        if steps := self._known_steps[label]:
            self.timed(label, "find", *steps[0])
            steps.rotate()

    def timed(self, label: str, name: str, *args: Any) -> Any:
        """Run a script, and note its time under ``label``."""
        self._looking.command("BITCOUNT", OUTSIDER)
        before, busy_before = self._spent_ms("commandstats", "cpu")
        answer = super().run(name, *args)
        busy_after, after = self._spent_ms("cpu", "commandstats")
        self.times_ms[label].append(min(after - before, busy_after - busy_before))
        return answer

    def medians(self) -> dict[str, float]:
        """Return the median time of each script so far, ms, and forget them."""
        found = {name: statistics.median(times) for name, times in self.times_ms.items() if times}
        self.times_ms.clear()
        self._known_steps.clear()
        return found

    def _spent_ms(self, *sections: str) -> list[float]:
        texts = self._looking.pipeline([("INFO", section) for section in sections])
        return [SPENT[section](text.decode()) for section, text in zip(sections, texts, strict=True)]


def _in_scripts_ms(stats: str) -> float:
    return sum(int(us) for us in re.findall(r"^cmdstat_eval(?:sha)?:calls=\d+,usec=(\d+)", stats, re.M)) / 1_000


def _busy_ms(cpu: str) -> float:
    seconds = re.findall(r"^used_cpu_(?:sys|user)_main_thread:([\d.]+)", cpu, re.M)
    return sum(map(float, seconds)) * 1_000 if seconds else time.monotonic() * 1_000


SPENT = {"commandstats": _in_scripts_ms, "cpu": _busy_ms}


class Heap:
    """One server with 1,000 nodes, and ``count`` of what ``fill`` is told.

    Args:
        beside: How many more there are that no script looks at. They spread the others over as much memory as a server
            of so many has, which a processor reaches more slowly whatever a script does.
    """

    def __init__(self, port: int, count: int, beside: int = 0) -> None:
        self.port, self.count, self.beside = port, count, beside
        self.client = redis.Redis(port=port, socket_timeout=60)
        self.link = TimedLink(port)
        self.epoch = EPOCH
        self._claims = self._opened = 0

    def begin(self) -> None:
        """Empty the server and open the nodes."""
        self.client.config_set("appendonly", "no")
        self.client.flushall(asynchronous=True)
        self.client.set(OUTSIDER, b"." * CACHE_BYTES)
        self.epoch, self._claims, self._opened = EPOCH, 0, NODES
        for number in range(NODES):
            Link.run(self.link, "open", "", 0, f"{number:032x}", 10 * LONG_MS, ABOUT_NODE, *TYPES)

    def open(self) -> None:
        """Open another node."""
        self._opened += 1
        self.link.run("open", "", 0, f"{self._opened:032x}", 10 * LONG_MS, ABOUT_NODE, *TYPES)

    def close(self) -> None:
        """Close the node that was opened last."""
        self.link.timed("close of a node", "close", "", 0, f"{self._opened:032x}")

    def fill(self, place: str, *, since_ms: int = 0) -> None:
        """Put ``count`` into ``place``."""
        fill(self.client, place, self.count, epoch=self.epoch, since_ms=since_ms, beside=self.beside)

    def claim(self, want: int = 10) -> list[str]:
        """Claim, and return the tags."""
        self._claims += 1
        answer = self.link.timed(f"claim of {want}", "claim", "", 0, self.epoch, self._claims, want, 0, "", 1, QUEUE)
        return [tag.decode() for tag in answer[6::2]]

    def push(self, count: int = 1, due_ms: int = 0) -> None:
        """Push ``count`` messages at once."""
        blobs = [seal(f"new-{number}", "shop.none", 0, BODY) for number in range(count)]
        if due_ms:
            self.link.timed("push delayed", "push", "", 0, "", 0, "", 0, QUEUE, 0, 0, due_ms, "new-0", blobs[0])
        else:
            self.link.timed(f"push of {count}", "push", "", 0, "", 0, "", 0, QUEUE, 0, count, *blobs)

    def settle(self, tags: list[str], *step: Any) -> None:
        """Finish claims."""
        steps = [word for tag in tags for word in ("T", tag, *step)]
        self.link.timed(f"settle of {len(tags)}", "settle", "", 0, self.epoch, 10_000_000, "node", *steps)

    def give_back(self, tags: list[str]) -> None:
        """Give claims back that have not begun."""
        self.link.run("requeue", "", 0, self.epoch, "unstarted", 3, 10_000_000, 0, "node", *tags)

    def park(self, tags: list[str]) -> None:
        """Set claims aside for a node that has their type."""
        self.link.run("park", "", 0, self.epoch, *[word for tag in tags for word in (tag, "shop.parked")])

    def beat(self, label: str = "beat") -> None:
        """Beat once, with a lease that lasts."""
        lease_ms = silent_ms = 10 * LONG_MS
        limits = (3, 10_000_000, 3_600_000)
        self.link.timed(label, "beat", "", 0, self.epoch, lease_ms, *limits, silent_ms, "{}")

    def end_lease(self) -> None:
        """Let the lease of its node end now, and go on as another."""
        self.client.zadd(KEYS("leases"), {self.epoch: 1}, xx=True)
        self.epoch = OTHER_EPOCH


def repeat(times: int, *steps: Callable[[], Any]) -> Iterator[None]:
    """Do each of ``steps`` so many times, one at a time."""
    for _ in range(times):
        for step in steps:
            step()
            yield
