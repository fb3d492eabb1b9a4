"""Schedules in numbers, at a cost that does not grow with them."""

from __future__ import annotations

from typing import NamedTuple

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered


class Overview(NamedTuple):
    """All schedules of one deployment, and the beat that leads."""

    states: dict[str, int]
    """How many there are of each of ``Known.state``."""
    late_seconds: float
    """How long the first due time that is not queued yet is past, by Redis' clock; 0 where none is."""
    tick_at: float | None
    """When ticks were last queued, Unix seconds; ``None``: never."""

    @property
    def total(self) -> int:
        """How many schedules there are."""
        return sum(self.states.values())


def overview(link: Link, prefix: str) -> Overview:
    """Return it in one round trip.

    Raises:
        NotSent, OutcomeUnknown: The server cannot be reached.
        ResponseError: It refuses.
    """
    keys = Keys(prefix)
    (seconds, micros), first, tick_at, total, active, paused, broken = all_answered(link.pipeline([
        ("TIME",),
        ("ZRANGE", keys("schedules_due"), 0, 0, "WITHSCORES"),
        ("HGET", keys("beat"), "tick_at"),
        ("ZCARD", keys("schedules")),
        ("ZCARD", keys("schedules_due")),
        ("SCARD", keys("schedules_paused")),
        ("SCARD", keys("schedules_broken")),
    ]))  # fmt: skip
    late_seconds = int(seconds) + int(micros) / 1_000_000 - float(first[1]) / 1_000 if first else 0.0
    states = {"active": active, "paused": paused, "broken": broken, "ended": max(total - active - paused - broken, 0)}
    return Overview(states, max(late_seconds, 0.0), float(tick_at) / 1_000 if tick_at else None)
