"""Schedules of mixed kinds, each with the list of its due times, computed beforehand by plain arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import Cron, Interval, Once

TASK = "faults.tick"
PERIODS_SECONDS = (1.0, 2.0, 1.7, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
CRONS: dict[str, Callable[[int], bool]] = {
    "*/5 * * * * *": lambda second: second % 60 % 5 == 0,
    "*/7 * * * * *": lambda second: second % 60 % 7 == 0,
    "3,13,40-44 * * * * *": lambda second: second % 60 in (3, 13, 40, 41, 42, 43, 44),
    "30 */2 * * * *": lambda second: second % 60 == 30 and second // 60 % 60 % 2 == 0,
    "* * * * *": lambda second: second % 60 == 0,
}
"""Expressions, those of six fields with seconds first, and whether a whole second of Unix time is due by them."""
KINDS = ("interval", "interval", "interval", "cron", "once")
POLICIES: tuple[dict[str, Any], ...] = (
    {"misfire": "once"},
    {"misfire": "skip", "grace_seconds": 2.0},
    {"misfire": "skip", "grace_seconds": 30.0},
    {"misfire": "catch_up", "catch_up_most": 100},
    {"misfire": "catch_up", "catch_up_most": 3},
)
OVERLAPS = ("allow", "allow", "skip", "queue")


@dataclass(frozen=True)
class Entry:
    """A schedule, and when it is due: ms, Unix time, in order, all there are."""

    schedule: Schedule
    dues: tuple[int, ...]
    run_seconds: float


def timetable(rng: random.Random, count: int, begins_at: int, ends_at: int) -> list[Entry]:
    """Return ``count`` entries that are due from ``begins_at`` to before ``ends_at``, whole Unix seconds."""
    return [_entry(rng, number, begins_at, ends_at) for number in range(count)]


def _entry(rng: random.Random, number: int, begins_at: int, ends_at: int) -> Entry:
    # Periods and overlaps go round in turn, so that a small table has some of each, too.
    kind, overlap = KINDS[number % len(KINDS)], OVERLAPS[number // len(KINDS) % len(OVERLAPS)]
    when, dues = _times(rng, kind, number, begins_at, ends_at)
    gaps = [(later - earlier) / 1_000 for earlier, later in pairwise(dues)]
    shortest_seconds = min(gaps, default=5.0)
    # Sometimes longer than its period, where the overlap policy decides.
    run_seconds = rng.choice((0.0, 1.3 * min(shortest_seconds, 3.0))) if overlap != "allow" else 0.0
    policy = rng.choice(POLICIES)
    schedule = Schedule(
        f"{number:03}-{kind}-{policy['misfire']}-{overlap}", TASK, when, args=(run_seconds,), queue="default",
        start_at=begins_at, end_at=ends_at, overlap=overlap, **policy,
        max_runs=rng.choice((0, 0, 0, 3, 10)), jitter_seconds=rng.choice((0.0, 0.0, 0.0, shortest_seconds * 0.4)),
    )  # fmt: skip
    return Entry(schedule, dues, run_seconds)


def _times(rng: random.Random, kind: str, number: int, begins_at: int, ends_at: int) -> tuple[Any, tuple[int, ...]]:
    first_ms, end_ms = begins_at * 1_000, ends_at * 1_000
    if kind == "once":
        due_ms = rng.randrange(first_ms, end_ms)
        return Once(due_ms / 1_000), (due_ms,)
    if kind == "cron":
        known = {text: _seconds(is_due, begins_at, ends_at) for text, is_due in CRONS.items()}
        # One that is never due is refused.
        expression = rng.choice([text for text, dues in known.items() if dues])
        return Cron(expression), known[expression]
    period_ms = round(PERIODS_SECONDS[number // len(KINDS) % len(PERIODS_SECONDS)] * 1_000)
    anchor_ms = first_ms - rng.randrange(10 * period_ms)
    first_due_ms = first_ms + (anchor_ms - first_ms) % period_ms
    return Interval(period_ms / 1_000, anchor_ms / 1_000), tuple(range(first_due_ms, end_ms, period_ms))


def _seconds(is_due: Callable[[int], bool], begins_at: int, ends_at: int) -> tuple[int, ...]:
    return tuple(second * 1_000 for second in range(begins_at, ends_at) if is_due(second))
