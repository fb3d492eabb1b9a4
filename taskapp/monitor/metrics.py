"""The one table of metrics.

Labels are bounded: task types beyond the first 200 count as ``other`` (see ``broker.totals``), queues are
those of the settings (others count as ``other``); no task id and no host is a label.
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
        """Yield the names its samples have."""
        if self.kind == "histogram":
            yield from (f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        else:
            yield self.name


TASK = ("type", "queue")
RUNS = {
    "received": "Deliveries of tasks to nodes.",
    "completed": "Runs that succeeded.",
    "failed": "Tasks that failed for good.",
    "retried": "Runs that failed and will be tried again.",
    "revoked": "Tasks that were revoked or had expired.",
    "rejected": "Tasks that asked to be rejected.",
    "ignored": "Runs that asked to be ignored, or were replaced by another task.",
    "crashed": "Runs that ended with their process.",
    "dead": "Messages moved to the dead letters.",
}
"""What happens to tasks, as ``broker.totals`` names it."""

METRICS = (
    *(Metric(f"taskapp_tasks_{what}_total", "counter", text, TASK) for what, text in RUNS.items()),
    Metric("taskapp_task_run_seconds", "histogram", "Time of a successful run.", ("type",)),
    Metric("taskapp_task_queue_wait_seconds", "histogram", "Time from when a task may run to its start.", ("queue",)),
    Metric("taskapp_queue_depth", "gauge", "Messages ready, not counting delayed ones.", ("queue", "priority")),
    Metric(
        "taskapp_queue_oldest_seconds", "gauge",
        "How long the next ready message has waited; 0 if there is none.",
        ("queue", "priority"),
    ),
    Metric("taskapp_queue_delayed", "gauge", "Messages that wait for their time.", ("queue",)),
    Metric("taskapp_queue_delayed_late_seconds", "gauge", "Since when the first of them is due; else 0.", ("queue",)),
    Metric("taskapp_queue_parked", "gauge", "Messages that wait for a node with their task type.", ("queue",)),
    Metric("taskapp_queue_parked_oldest_seconds", "gauge", "For how long the first of them has.", ("queue",)),
    Metric("taskapp_queue_nodes", "gauge", "Nodes that take from the queue.", ("queue",)),
    Metric("taskapp_dead_letters", "gauge", "Dead letters.", ("queue", "reason")),
    Metric("taskapp_dead_letters_dropped_total", "counter", "Dead letters dropped: too many of a kind.", ("reason",)),
    Metric("taskapp_messages_held", "gauge", "Messages that nodes hold: what runs, and what is about to."),
    Metric("taskapp_nodes", "gauge", "Nodes: running, draining, or lost (its lease has ended).", ("state",)),
    Metric("taskapp_slots", "gauge", "Tasks that nodes can run at once.", ("kind",)),
    Metric("taskapp_slots_used", "gauge", "Tasks that nodes ran at their last heartbeats.", ("kind",)),
    Metric("taskapp_leases_lost_total", "counter", "Leases of nodes that died, hung or were cut off."),
    Metric("taskapp_schedules", "gauge", "Schedules: active, paused, broken or ended.", ("state",)),
    Metric("taskapp_beat_lateness_seconds", "gauge", "For how long what is due was not queued; else 0."),
    Metric(
        "taskapp_beat_last_tick_timestamp_seconds", "gauge",
        "When a beat last queued what was due, Unix seconds; 0 before the first.",
    ),
    Metric("taskapp_history_waiting", "gauge", "Finished tasks that wait to be written into the history."),
    Metric("taskapp_history_oldest_seconds", "gauge", "For how long the first of them has; 0 if there is none."),
    Metric("taskapp_history_dropped_total", "counter", "Finished tasks that were too many before anybody wrote them."),
    Metric("taskapp_history_aside_total", "counter", "Finished tasks set aside: nobody could read or store them."),
    Metric("taskapp_broker_up", "gauge", "1 while the broker answers, else 0."),
    Metric("taskapp_redis_memory_bytes", "gauge", "Memory that Redis uses."),
    Metric("taskapp_redis_memory_limit_bytes", "gauge", "What it may use; 0: no limit."),
    Metric("taskapp_redis_evicted_keys_total", "counter", "Keys that Redis threw away to stay within its limit."),
    Metric("taskapp_redis_persistence_failing", "gauge", "1 if its last snapshot or append to file failed, else 0."),
    Metric("taskapp_redis_unsaved_changes", "gauge", "Changes since its last snapshot; 0 with an append-only file."),
    Metric("taskapp_redis_last_save_timestamp_seconds", "gauge", "When it last took a snapshot, Unix seconds."),
    Metric("taskapp_scrape_seconds", "gauge", "Time that reading all of this took."),
)  # fmt: skip
"""Every metric there is. All are read from the broker when scraped; what it does not tell has no sample."""


def row(name: str) -> Metric:
    """Return the row of the metric ``name``."""
    return next(metric for metric in METRICS if metric.name == name)


def type_label(task_type: str) -> str:
    """Return the label of a task type; ``other`` for a name that cannot be one."""
    # A name that cannot be written as UTF-8 would fail every scrape.
    return task_type if task_type and len(task_type) <= NAME_MOST and task_type.isprintable() else OTHER
