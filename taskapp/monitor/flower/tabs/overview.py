"""The overview tab: the last hour by the minute, and the current state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from taskapp.app.application import Celery
from taskapp.engine.counters import Minute, read_minutes
from taskapp.engine.snapshot import Snapshot, read_snapshot
from taskapp.monitor.flower.page.tab import PageQuery, Tab
from taskapp.monitor.flower.page.view import Card, Cards, ChartBlock, Note, Series, Tone, View

MINUTES = 60
QUEUES_DRAWN = 7
"""Number of busiest queues drawn one by one; the others are summed."""


class OverviewTab(Tab):
    """Overview."""

    name: ClassVar[str] = "overview"
    title: ClassVar[str] = "Overview"
    about: ClassVar[str] = "The last hour, and the current state."
    order: ClassVar[int] = 10
    without_engine: ClassVar[str] = (
        "The last hour is counted only with Redis as the broker. "
        "See the Workers and Tasks tabs for the events Flower has received since it started."
    )

    def view(self, app: Celery, query: PageQuery) -> View:  # noqa: ARG002 - this tab has no filters
        """Return figures and charts."""
        with app.engine() as engine:
            now = read_snapshot(engine.link, engine.prefix, app.queue_names())
            minutes = read_minutes(engine.link, engine.prefix, MINUTES)
        has_nodes = any(node.state != "lost" for node in now.nodes)
        no_nodes = Note(
            f"No nodes are running, so no tasks run. Start one with: celery -A {app.argument} worker", "danger"
        )
        return View(
            [*([] if has_nodes else [no_nodes]), _cards(now, minutes), *_charts(minutes, app.queue_names())],
            now.at,
            3.0,
        )


def _cards(now: Snapshot, minutes: Sequence[Minute]) -> Cards:
    completed, failed = (sum(_number(minute, what) for minute in minutes) for what in ("completed", "failed"))
    ages = [queue.oldest_seconds for queue in now.queues if queue.oldest_seconds is not None]
    dead = sum(sum(queue.dead.values()) for queue in now.queues)
    return Cards([
        Card("done, 1 min", _number(minutes[-2], "completed"), tone="success"),
        Card("done, 1 h", completed, tone="success"),
        Card("failed, 1 h", failed, tone="danger" if failed else ""),
        Card("failed, %", 100 * failed / (completed + failed) if completed + failed else None, "decimal"),
        Card("waiting", sum(queue.depth for queue in now.queues), tone="active"),
        Card("oldest", max(ages, default=None), "seconds"),
        Card("running", sum(node.held for node in now.nodes), tone="active"),
        Card("dead letters", dead, tone="danger" if dead else ""),
    ])  # fmt: skip


def _charts(minutes: Sequence[Minute], order: Sequence[str]) -> list[ChartBlock]:
    at = [float(minute.at) for minute in minutes]
    tones: dict[str, Tone] = {"failed": "danger", "crashed": "active", "retried": "warning"}
    return [
        ChartBlock("Completed per minute", at, _completed(minutes, order)),
        ChartBlock("Wait to start, average", at, _waits(minutes, order), "seconds", "lines"),
        ChartBlock("Failed and retried per minute", at, [_series(minutes, what, tone) for what, tone in tones.items()]),
        ChartBlock("Delivered to nodes per minute", at, [_series(minutes, "received", "active")]),
    ]


def _number(minute: Minute, what: str) -> int:
    return sum(number for (each, _), number in minute.tasks.items() if each == what)


def _series(minutes: Sequence[Minute], what: str, tone: Tone) -> Series:
    return Series(what, [_number(minute, what) for minute in minutes], tone)


def _completed(minutes: Sequence[Minute], order: Sequence[str]) -> list[Series]:
    by_queue = [Counter({q: n for (what, q), n in minute.tasks.items() if what == "completed"}) for minute in minutes]
    drawn = _busiest(by_queue, order)
    series = [Series(queue, [each[queue] for each in by_queue]) for queue in drawn]
    others = [sum(number for queue, number in each.items() if queue not in drawn) for each in by_queue]
    return [*series, *([Series("others", others)] if any(others) else [])]


def _waits(minutes: Sequence[Minute], order: Sequence[str]) -> list[Series]:
    by_queue = [Counter({queue: number for queue, (number, _) in minute.waits.items()}) for minute in minutes]
    drawn = _busiest(by_queue, order)
    return [Series(queue, [_average(minute, queue) for minute in minutes]) for queue in drawn]


def _average(minute: Minute, queue: str) -> float | None:
    number, seconds = minute.waits.get(queue, (0, 0.0))
    return seconds / number if number else None


def _busiest(by_minute: Sequence[Counter[str]], order: Sequence[str]) -> list[str]:
    """Return the busiest queues, those of ``order`` first, so that each queue keeps its color."""
    total = sum(by_minute, Counter[str]())
    most = {queue for queue, _ in total.most_common(QUEUES_DRAWN)}
    known = [queue for queue in order if queue in most]
    return [*known, *sorted(most.difference(known))]
