"""The state of all queues, by priority, and of all nodes at one instant; read in one step without changing anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from taskapp.engine.dead_letters import REASONS
from taskapp.queues import PRIORITIES, TICKS
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link

KINDS = {"R": "rate", "S": "slots", "U": "unique"}
NODES_AT_ONCE = 500
"""Number of nodes that one call reads; the others are read a moment later."""


class Waiting(NamedTuple):
    """The ready messages of one priority."""

    depth: int
    oldest_seconds: float | None
    """How long the next one has waited since it was submitted or due; ``None``: there is none, or it is unknown."""


class LimitRef(NamedTuple):
    """A limit by which messages are blocked."""

    kind: str
    """``rate``, ``slots`` or ``unique``."""
    name: str
    """Its name; of ``unique``, the task type."""


class Parked(NamedTuple):
    """The parked messages of one task type."""

    number: int
    oldest_seconds: float
    """How long the oldest has been parked."""


@dataclass(frozen=True)
class QueueSnapshot:
    """Messages of one queue."""

    name: str
    waiting: dict[int, Waiting]
    """By priority, 0 to 9."""
    delayed: int
    next_due_seconds: float | None
    """Seconds until the first delayed message is due, below 0 if it is overdue; ``None``: none is delayed."""
    parked: dict[str, Parked]
    """By task type; only some if there are more than 100."""
    dead: dict[str, int]
    """Number of dead letters by reason."""
    unlisted_types: int = 0
    """Number of further task types with parked messages."""
    blocked_by: dict[LimitRef, int] = field(default_factory=dict)
    """Number of messages that may not run yet, by the limit they wait for."""

    @property
    def blocked(self) -> int:
        """Number of messages that may not run yet because of a limit."""
        return sum(self.blocked_by.values())

    @property
    def depth(self) -> int:
        """Number of ready messages; blocked ones are not ready."""
        return sum(waiting.depth for waiting in self.waiting.values())

    @property
    def parked_depth(self) -> int:
        """Number of parked messages; a lower bound if there are ``unlisted_types``."""
        return sum(parked.number for parked in self.parked.values()) + self.unlisted_types

    @property
    def dead_depth(self) -> int:
        """Number of dead letters."""
        return sum(self.dead.values())

    @property
    def oldest_seconds(self) -> float | None:
        """Longest wait among the next messages of all priorities; ``None``: none is ready, or it is unknown."""
        ages = [waiting.oldest_seconds for waiting in self.waiting.values() if waiting.oldest_seconds is not None]
        return max(ages, default=None)


@dataclass(frozen=True)
class NodeSnapshot:
    """One node, as it described itself with its last heartbeat."""

    epoch: str
    name: str
    """Its name in ``celery inspect``; empty: a consumer that does not describe itself."""
    state: str
    """``running``, ``draining``, or ``lost``: its lease has ended, and its messages are about to be returned."""
    slots: dict[str, int]
    """Number of tasks it may run at once, by kind of slot."""
    used: dict[str, int]
    """Number of tasks it was running, by kind of slot."""
    held: int
    """Number of messages it holds now."""
    queues: tuple[str, ...]
    load: float | None
    """Load average of its machine over one minute, per processor."""
    started_at: float | None
    """Unix seconds."""
    lease_seconds: float
    """Seconds until its lease ends; below 0: seconds since it ended."""


@dataclass(frozen=True)
class Snapshot:
    """All queues and nodes at one instant."""

    at: float
    """Unix seconds, by the clock of Redis."""
    queues: list[QueueSnapshot]
    nodes: list[NodeSnapshot]
    counts: dict[str, int]
    """Counters of messages that were not run: ``buried:<reason>``, ``dropped:<reason>``, ``expired``, ``revoked`` …"""

    def takers(self) -> Counter[str]:
        """Return the number of nodes that consume each queue; a draining or lost node consumes none."""
        return Counter(queue for node in self.nodes if node.state == "running" for queue in node.queues)


def read_snapshot(link: Link, prefix: str, queues: Sequence[str]) -> Snapshot:
    """Return the state of ``queues``, of others that have been used, and of all nodes; errors are those of ``Link``."""
    used = {queue.decode(errors="replace") for queue in link.command("SMEMBERS", Keys(prefix)("queues"))} - {TICKS}
    queues = (*queues, *sorted(used.difference(queues)))
    now_ms, wall_ms, *found, nodes, counts = link.run("look", prefix, 0, 0, len(REASONS), *REASONS, *queues)
    now, some = now_ms / 1_000, nodes
    while len(some) >= 4 * NODES_AT_ONCE:
        _, _, some, _ = link.run("look", prefix, 0, len(nodes) // 4, 0)
        nodes += some
    parts = zip(found[::5], found[1::5], found[2::5], found[3::5], found[4::5], strict=True)
    return Snapshot(
        wall_ms / 1_000,
        [_queue(name, now, *part) for name, part in zip(queues, parts, strict=True)],
        [_node(now, *each) for each in zip(nodes[::4], nodes[1::4], nodes[2::4], nodes[3::4], strict=True)],
        {name.decode(): int(number) for name, number in zip(counts[::2], counts[1::2], strict=True)},
    )


def asks_for_ready(keys: Keys, queue: str) -> list[tuple[str, str]]:
    """Return the commands whose answers ``ready_in`` counts."""
    return [*(("LLEN", key) for key in keys.waiting(queue)), ("HGETALL", keys("limited", queue))]


def ready_in(answers: Sequence[Any]) -> int:
    """Return how many messages of a queue are ready, with and without limits; a key of another type counts as empty."""
    *lengths, limited = answers
    ready = sum(length for length in lengths if isinstance(length, int))
    if not isinstance(limited, list):
        return ready
    signs = {b"all": 1, b"blocked": -1}
    return ready + sum(
        signs.get(what.partition(b":")[0], 0) * int(float(number))
        for what, number in zip(limited[::2], limited[1::2], strict=True)
    )


def limit_ref(text: str) -> LimitRef:
    """Return a limit as scripts write it."""
    kind, _, name = text.partition("\x1f")
    return LimitRef(KINDS.get(kind, kind), name)


def _queue(name: str, now: float, ready: Any, delayed: Any, parked: Any, dead: Any, blocked: Any) -> QueueSnapshot:
    waiting = zip(PRIORITIES, ready[::3], ready[1::3], ready[2::3], strict=True)
    number, due_ms = delayed
    parked_types, *parked = parked
    return QueueSnapshot(
        name,
        {priority: Waiting(depth, _age(now, sent_at, eta)) for priority, depth, sent_at, eta in waiting},
        number,
        float(due_ms) / 1_000 - now if due_ms else None,
        {
            task.decode(errors="replace"): Parked(count, max(now - float(since) / 1_000, 0.0))
            for task, count, since in zip(parked[::3], parked[1::3], parked[2::3], strict=True)
        },
        {reason: count for reason, count in zip(REASONS, dead, strict=True) if count},
        parked_types - len(parked) // 3,
        {
            limit_ref(limit.decode(errors="replace")): number
            for limit, number in zip(blocked[::2], blocked[1::2], strict=True)
        },
    )


def _age(now: float, sent_at: bytes, eta: bytes) -> float | None:
    """Return how long a message has waited since it was due, or since it was sent if it had no due time."""
    since = float(sent_at) if sent_at else None
    if eta:
        with suppress(ValueError, OverflowError):
            since = max(datetime.fromisoformat(eta.decode()).timestamp(), since or 0.0)
    return None if since is None else max(now - since, 0.0)


def _node(now: float, epoch: bytes, ends_ms: bytes, held: int, about_json: bytes) -> NodeSnapshot:
    try:
        about = json.loads(about_json) if about_json else {}
    except ValueError:
        about = {}
    lease_seconds = float(ends_ms) / 1_000 - now
    return NodeSnapshot(
        epoch.decode(errors="replace"),
        str(about.get("name", "")),
        "lost" if lease_seconds <= 0 else str(about.get("state", "running")),
        about.get("slots", {}),
        about.get("used", {}),
        held,
        tuple(about.get("queues", ())),
        about.get("load"),
        about.get("started_at"),
        lease_seconds,
    )
