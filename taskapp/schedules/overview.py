"""Counts of schedules, read at a cost independent of their number."""

from __future__ import annotations

from typing import NamedTuple

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered


class Overview(NamedTuple):
    """Counts of a deployment's schedules, and how late their ticks are."""

    states: dict[str, int]
    """Number of schedules by ``ScheduleRecord.state``."""
    late_seconds: float
    """How overdue the earliest unqueued tick is, by Redis' clock; 0 if none is."""
    tick_at: float | None
    """When ticks were last queued, in Unix seconds; ``None`` if never."""

    @property
    def total(self) -> int:
        """Number of schedules."""
        return sum(self.states.values())


def overview(link: Link, prefix: str) -> Overview:
    """Return the overview, read in one round trip.

    Raises:
        NotSent, OutcomeUnknown: The server cannot be reached.
        ResponseError: The server refuses a command.
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
