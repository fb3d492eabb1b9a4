"""The table of all metrics.

Labels are bounded: task types beyond the first 200 count as ``other`` (see ``engine.counters``), as do limits beyond
the first 200 by name, and queues that the settings do not name; task ids, keys of limits and hosts are never labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

OTHER = "other"
NAME_MOST = 200


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def series(self) -> Iterator[str]:
        """Yield the names of its samples."""
        if self.kind == "histogram":
            yield from (f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        else:
            yield self.name


TASK = ("type", "queue")
RUNS = {
    "received": "Task deliveries to nodes.",
    "completed": "Runs that succeeded.",
    "failed": "Tasks that failed permanently.",
    "retried": "Runs that failed and will be retried.",
    "revoked": "Tasks that were revoked or had expired.",
    "rejected": "Tasks that raised Reject.",
    "ignored": "Runs that raised Ignore, or were replaced by another task.",
    "crashed": "Runs whose process died.",
    "dead": "Messages moved to the dead letters.",
    "duplicate": "Submits that met a task with their unique key.",
    "dropped": "Tasks dropped because as many ran as may, with on_busy='drop'.",
}
"""What can happen to a task, by the names of ``engine.counters``."""

METRICS = (
    *(Metric(f"taskapp_tasks_{what}_total", "counter", text, TASK) for what, text in RUNS.items()),
    Metric("taskapp_task_run_seconds", "histogram", "Duration of successful runs.", ("type",)),
    Metric("taskapp_task_queue_wait_seconds", "histogram", "Time from when a task may run to its start.", ("queue",)),
    Metric("taskapp_queue_depth", "gauge", "Ready messages, excluding delayed ones.", ("queue", "priority")),
    Metric(
        "taskapp_queue_oldest_seconds", "gauge",
        "How long the next ready message has waited; 0 if there is none.",
        ("queue", "priority"),
    ),
    Metric(
        "taskapp_queue_limit", "gauge", "How many tasks may wait in the queue; no sample without a limit.", ("queue",)
    ),
    Metric("taskapp_queue_full_total", "counter", "Pushes that the limit of the queue refused.", ("queue",)),
    Metric(
        "taskapp_circuit_open", "gauge",
        "1 while the circuit breaker of the task type is open or half-open; no sample while it is closed.",
        ("type",),
    ),
    Metric("taskapp_queue_delayed", "gauge", "Messages that wait until they are due.", ("queue",)),
    Metric(
        "taskapp_queue_delayed_late_seconds", "gauge",
        "How long the earliest delayed message is overdue; 0 if none is.",
        ("queue",),
    ),
    Metric("taskapp_queue_blocked", "gauge", "Messages that a limit does not let run yet.", ("queue",)),
    Metric("taskapp_limit_blocked", "gauge", "Messages that the limit does not let run yet.", ("limit", "kind")),
    Metric("taskapp_queue_parked", "gauge", "Messages that wait for a node with their task type.", ("queue",)),
    Metric(
        "taskapp_queue_parked_oldest_seconds", "gauge",
        "How long the oldest parked message has waited; 0 if there is none.",
        ("queue",),
    ),
    Metric("taskapp_queue_nodes", "gauge", "Nodes that consume from the queue.", ("queue",)),
    Metric("taskapp_dead_letters", "gauge", "Dead letters.", ("queue", "reason")),
    Metric("taskapp_dead_letters_dropped_total", "counter", "Dead letters dropped over the limit.", ("reason",)),
    Metric("taskapp_messages_held", "gauge", "Messages that nodes hold: running, or about to run."),
    Metric("taskapp_nodes", "gauge", "Nodes: running, draining, or lost (lease expired).", ("state",)),
    Metric("taskapp_slots", "gauge", "Tasks that nodes can run at once.", ("kind",)),
    Metric("taskapp_slots_used", "gauge", "Tasks that nodes ran at their last heartbeats.", ("kind",)),
    Metric("taskapp_leases_lost_total", "counter", "Expired leases of nodes that died, hung or were cut off."),
    Metric("taskapp_schedules", "gauge", "Schedules: active, paused, broken or ended.", ("state",)),
    Metric("taskapp_beat_lateness_seconds", "gauge", "How long the earliest due tick is overdue; 0 if none is."),
    Metric(
        "taskapp_beat_last_tick_timestamp_seconds", "gauge",
        "When a beat last queued due ticks, Unix seconds; 0 before the first.",
    ),
    Metric("taskapp_history_waiting", "gauge", "Finished tasks that wait to be written to the history."),
    Metric("taskapp_history_oldest_seconds", "gauge", "How long the oldest of them has waited; 0 if there is none."),
    Metric("taskapp_history_dropped_total", "counter", "Finished tasks dropped unwritten: backlog full."),
    Metric("taskapp_history_aside_total", "counter", "Finished tasks set aside: unreadable, or refused by SQL."),
    Metric("taskapp_outbox_waiting", "gauge", "Rows of the outbox in TASKAPP_OUTBOX_URL that wait for a relay."),
    Metric("taskapp_outbox_oldest_seconds", "gauge", "How long the oldest of them has waited; 0 if there is none."),
    Metric("taskapp_outbox_refused", "gauge", "Rows of the outbox that could not be queued."),
    Metric("taskapp_broker_up", "gauge", "1 while the broker answers, else 0."),
    Metric("taskapp_redis_memory_bytes", "gauge", "Memory that Redis uses."),
    Metric("taskapp_redis_memory_limit_bytes", "gauge", "Memory limit of Redis (maxmemory); 0: no limit."),
    Metric("taskapp_redis_evicted_keys_total", "counter", "Keys that Redis evicted to stay within its memory limit."),
    Metric("taskapp_redis_persistence_failing", "gauge", "1 if the last snapshot or write to the AOF failed, else 0."),
    Metric("taskapp_redis_unsaved_changes", "gauge", "Changes since the last snapshot; 0 with an AOF."),
    Metric("taskapp_redis_last_save_timestamp_seconds", "gauge", "When Redis last took a snapshot, Unix seconds."),
    Metric("taskapp_scrape_seconds", "gauge", "Time this scrape took to read the broker."),
)  # fmt: skip
"""Every metric. All are read at each scrape, from the broker or the outbox; one that they do not provide has no
samples."""


def row(name: str) -> Metric:
    """Return the row of the metric ``name``."""
    return next(metric for metric in METRICS if metric.name == name)


def type_label(task_type: str) -> str:
    """Return the label for a task type; ``other`` for a name that cannot be a label."""
    # A name that cannot be encoded as UTF-8 would fail every scrape.
    return task_type if task_type and len(task_type) <= NAME_MOST and task_type.isprintable() else OTHER
