"""Rates of task types and queues between two looks at the broker. Pure arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from taskapp.engine.counters import BEYOND, Spread, Totals
from taskapp.engine.snapshot import Snapshot

SLOW_SHARE = 0.95


class Look(NamedTuple):
    """The broker's state at one time."""

    at: float
    """Seconds of a monotonic clock."""
    snapshot: Snapshot
    totals: Totals


class TypeRates(NamedTuple):
    """Events of one task type, per second."""

    task: str
    completed: float
    failed: float
    retried: float
    mean_seconds: float | None
    """Mean time of successful runs; ``None`` if there were none."""
    slow_seconds: float | None
    """Upper bound of the histogram bucket with the 95th percentile; infinite beyond the last bound."""

    @property
    def failing_share(self) -> float:
        """Share of ended runs that failed, 0 to 1."""
        ended = self.completed + self.failed + self.retried
        return (self.failed + self.retried) / ended if ended else 0.0


def type_rates(before: Look, now: Look) -> list[TypeRates]:
    """Return the rates of each task type between two looks: those with most failures first, then the busiest."""
    seconds = max(now.at - before.at, 1e-3)
    counts = _risen(before.totals, now.totals, label=1)
    types = {task for _, task in counts}
    rates = [_of_type(task, counts, before, now, seconds) for task in types]
    return sorted(rates, key=lambda each: (-each.failed, -each.retried, -each.completed, each.task))


def _of_type(
    task: str, counts: Mapping[tuple[str, str], int], before: Look, now: Look, seconds: float
) -> TypeRates:  # fmt: skip
    mean, slow = _spread(before.totals.runs.get(task, Spread()), now.totals.runs.get(task, Spread()))
    done, failed, retried = (counts.get((what, task), 0) / seconds for what in ("completed", "failed", "retried"))
    return TypeRates(task, done, failed, retried, mean, slow)


def _spread(before: Spread, now: Spread) -> tuple[float | None, float | None]:
    buckets = Counter({bound: number - before.buckets[bound] for bound, number in now.buckets.items()})
    total = sum(buckets.values())
    if total <= 0:
        return None, None
    seen = 0
    for bound in sorted(buckets, key=float):
        seen += buckets[bound]
        if seen >= SLOW_SHARE * total:
            break
    return max(now.seconds - before.seconds, 0.0) / total, float("inf") if bound == BEYOND else float(bound)


class QueueRates(NamedTuple):
    """Events of one queue, per second."""

    received: float
    completed: float
    failed: float


def queue_rates(before: Look, now: Look) -> dict[str, QueueRates]:
    """Return the rates of each queue between two looks."""
    seconds = max(now.at - before.at, 1e-3)
    counts = _risen(before.totals, now.totals, label=2)
    return {
        queue: QueueRates(
            *(counts.get((what, queue), 0) / seconds for what in ("received", "completed", "failed"))
        )
        for queue in {queue for _, queue in counts}
    }  # fmt: skip


def _risen(before: Totals, now: Totals, label: int) -> Counter[tuple[str, str]]:
    """Return how much each counter rose, by event and task type (``label`` 1) or queue (2); never negative."""
    risen: Counter[tuple[str, str]] = Counter()
    for key, number in now.tasks.items():
        # After a flush, the server counts from 0 again.
        risen[key[0], key[label]] += max(number - before.tasks.get(key, 0), 0)
    return +risen


def rates_json(before: Look, now: Look) -> dict[str, Any]:
    """Return the content of ``taskapp top`` for JSON: rates per second; percentiles over 1 h as None."""
    rates = queue_rates(before, now)
    takers = now.snapshot.takers()
    return {
        "at": now.snapshot.at,
        "queues": [
            {
                "name": queue.name, "ready": queue.depth, "oldest_seconds": queue.oldest_seconds,
                "delayed": queue.delayed, "blocked": queue.blocked, "parked": queue.parked_depth,
                "dead": queue.dead_depth,
                "nodes": takers[queue.name], **rates.get(queue.name, QueueRates(0.0, 0.0, 0.0))._asdict(),
            }
            for queue in now.snapshot.queues
        ],
        "nodes": [{**asdict(node), "queues": list(node.queues)} for node in now.snapshot.nodes],
        "task_types": [
            {**each._asdict(), "slow_seconds": None if each.slow_seconds == float("inf") else each.slow_seconds}
            for each in type_rates(before, now)
        ],
    }  # fmt: skip
