"""The one table of metrics, and the objects that count.

Labels are bounded: task types beyond ``MAX_TASK_TYPES`` count as ``other``, queues are those of the
settings (others count as ``other``); no task id, no host of a publisher.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

MAX_TASK_TYPES = 200
MAX_NAME_LENGTH = 200
OTHER = "other"
RUN_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
WAIT_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    kind: type[MetricWrapperBase] | None
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


TASK = ("type", "queue")
METRICS = (
    Metric("taskapp_tasks_received_total", Counter, "Deliveries of tasks to nodes.", TASK),
    Metric("taskapp_tasks_completed_total", Counter, "Runs that succeeded.", TASK),
    Metric("taskapp_tasks_failed_total", Counter, "Tasks that failed for good.", TASK),
    Metric("taskapp_tasks_retried_total", Counter, "Runs that failed and will be tried again.", TASK),
    Metric("taskapp_task_run_seconds", Histogram, "Time of a successful run.", ("type",), RUN_BUCKETS_SECONDS),
    Metric(
        "taskapp_task_queue_wait_seconds", Histogram,
        "Time from submit to the first start, for tasks without a due time of their own.",
        ("queue",), WAIT_BUCKETS_SECONDS,
    ),
    # Read when scraped, so that a broker that is away leaves no stale number.
    Metric("taskapp_queue_depth", None, "Messages ready, not counting delayed ones.", ("queue", "priority")),
    Metric("taskapp_nodes_up", None, "Nodes that sent a heartbeat lately."),
    Metric("taskapp_broker_up", None, "1 while the broker answers, else 0."),
    Metric("taskapp_schedules", None, "Schedules: active, paused, broken or ended.", ("state",)),
    Metric("taskapp_beat_lateness_seconds", None, "For how long what is due was not queued; else 0."),
    Metric(
        "taskapp_beat_last_tick_timestamp_seconds", None,
        "When a beat last queued what was due, Unix seconds; 0 before the first.",
    ),
    Metric("taskapp_exporter_events_total", Counter, "Events read from the broker."),
    Metric("taskapp_exporter_events_invalid_total", Counter, "Events among them that could not be understood."),
    Metric(
        "taskapp_exporter_last_event_timestamp_seconds", Gauge,
        "When the last event was read, Unix seconds; 0 before the first.",
    ),
)  # fmt: skip
"""Every metric there is. Those of no kind are collected when scraped."""


def row(name: str) -> Metric:
    """Return the row of the metric ``name``."""
    return next(metric for metric in METRICS if metric.name == name)


@dataclass
class Metrics:
    """The metrics that count events, on a registry of their own."""

    queues: Collection[str]
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _objects: dict[str, MetricWrapperBase] = field(default_factory=dict)
    _types: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for metric in METRICS:
            if metric.kind is not None:
                options: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
                self._objects[metric.name] = metric.kind(
                    metric.name, metric.help, metric.labels, registry=self.registry, **options
                )

    def count(self, name: str, *labels: str) -> None:
        """Add one to a counter."""
        counter = self._objects[name]
        (counter.labels(*labels) if labels else counter).inc()  # type: ignore[attr-defined]

    def appear(self, task_type: str, queue: str) -> None:
        """Show the counters of a type in a queue, at zero if they are new.

        A counter that appears with its first failure has not risen, so that no rule sees it.
        """
        for metric in METRICS:
            if metric.labels == TASK:
                self._objects[metric.name].labels(task_type, queue)

    def observe(self, name: str, label: str, seconds: float) -> None:
        """Put ``seconds`` into a histogram; a clock that went backwards counts as zero.

        Raises:
            ValueError: ``seconds`` is no number; it would spoil the sum for good.
        """
        if not math.isfinite(seconds):
            raise ValueError(f"a duration cannot be {seconds!r}")
        self._objects[name].labels(label).observe(max(0.0, seconds))  # type: ignore[attr-defined]

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._objects[name].set(value)  # type: ignore[attr-defined]

    def type_label(self, task_type: str | None) -> str:
        """Return the label of a task type; the first ``MAX_TASK_TYPES`` have one of their own."""
        # A name that cannot be written as UTF-8 would fail every scrape.
        if not task_type or len(task_type) > MAX_NAME_LENGTH or not task_type.isprintable():
            return OTHER
        if task_type not in self._types and len(self._types) < MAX_TASK_TYPES:
            self._types.add(task_type)
        return task_type if task_type in self._types else OTHER

    def queue_label(self, queue: str | None) -> str:
        """Return the label of a queue: its name if the settings name it."""
        return queue if queue in self.queues and queue else OTHER
