"""Turns one reading of the broker into the metric families of ``metrics``. All scrapers see the same values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from taskapp.engine.circuits import Circuit
from taskapp.engine.completions import Backlog
from taskapp.engine.counters import BEYOND, RUN_BUCKETS_SECONDS, WAIT_BUCKETS_SECONDS, Spread, Totals
from taskapp.engine.dead_letters import REASONS
from taskapp.engine.snapshot import QueueSnapshot, Snapshot
from taskapp.monitor.limit_rows import LimitRow
from taskapp.monitor.metrics import METRICS, OTHER, RUNS, row, type_label
from taskapp.outbox.rows import OutboxBacklog
from taskapp.schedules.overview import Overview

FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}

LIMITS_MOST = 200
"""Maximum number of limits with labels of their own."""

Samples = Mapping[Any, float]
"""Values by label values, in the order of the table."""


class Read(NamedTuple):
    """What one scrape read; ``None`` for parts the broker does not provide."""

    snapshot: Snapshot | None = None
    totals: Totals | None = None
    schedules: Overview | None = None
    finished: Backlog | None = None
    """Tasks that wait to be written to the history."""
    queue_limits: Mapping[str, int] = MappingProxyType({})
    """By queue, for those that have one."""
    limits: Sequence[LimitRow] = ()
    """Those of tasks, by name."""
    circuits: Sequence[Circuit] = ()
    """Those that are not closed."""
    info: Mapping[str, str] | None = None
    """``INFO`` of Redis."""


def families(read: Read, known_types: Mapping[str, str], queues: Collection[str]) -> Iterator[Metric]:
    """Yield the metric families of one reading.

    Args:
        read: The reading.
        known_types: Task types and their queues, whose counters are exported from the start.
        queues: Queues with their own label.
    """
    if read.totals is not None:
        yield from _of_totals(read.totals, known_types, queues)
    if read.snapshot is not None:
        yield from _of_queues(read.snapshot.queues)
        limits = {(queue,): limit for queue, limit in read.queue_limits.items()}
        yield family("taskapp_queue_limit", limits)
        yield from _of_limits(read.limits, read.snapshot.counts, queues)
        yield family("taskapp_circuit_open", {(type_label(circuit.task),): 1 for circuit in read.circuits})
        yield from _of_nodes(read.snapshot)
    if read.schedules is not None:
        yield from _of_schedules(read.schedules)
    if read.finished is not None:
        yield from _of_history(read.finished)
    if read.info is not None:
        yield from _of_redis(read.info)


def named() -> Iterator[Metric]:
    """Yield every family without samples."""
    for metric in METRICS:
        yield family(metric.name, {})


def family(name: str, samples: Samples) -> Metric:
    """Build the counter or gauge ``name`` with ``samples``."""
    metric = row(name)
    made: Any = FAMILIES[metric.kind](name, metric.help, labels=metric.labels)
    for labels, value in samples.items():
        made.add_metric(labels, value)
    return made  # type: ignore[no-any-return]  # one of FAMILIES


def _of_totals(totals: Totals, known_types: Mapping[str, str], queues: Collection[str]) -> Iterator[Metric]:
    tasks = {what: Counter[tuple[str, ...]]() for what in RUNS}
    # A counter that first appears with value 1 has not increased, so no rule would see the first failure.
    shown = {(type_label(task), _queue_label(queue, queues)) for task, queue in known_types.items()}
    for (what, task, queue), number in totals.tasks.items():
        labels = type_label(task), _queue_label(queue, queues)
        shown.add(labels)
        if what in tasks:
            tasks[what][labels] += number
    for what, counted in tasks.items():
        yield family(f"taskapp_tasks_{what}_total", {labels: counted[labels] for labels in sorted(shown)})
    runs = _merged({task: type_label(task) for task in totals.runs}, totals.runs)
    yield _histogram("taskapp_task_run_seconds", runs, RUN_BUCKETS_SECONDS)
    waits = _merged({queue: _queue_label(queue, queues) for queue in totals.waits}, totals.waits)
    yield _histogram("taskapp_task_queue_wait_seconds", waits, WAIT_BUCKETS_SECONDS)


def _merged(labels: Mapping[str, str], spreads: Mapping[str, Spread]) -> dict[str, Spread]:
    merged: dict[str, Spread] = {}
    for name, spread in spreads.items():
        known = merged.setdefault(labels[name], Spread())
        known.buckets += spread.buckets
        known.seconds += spread.seconds
    return merged


def _histogram(name: str, spreads: Mapping[str, Spread], bounds: tuple[float, ...]) -> Metric:
    metric = row(name)
    made = HistogramMetricFamily(name, metric.help, labels=metric.labels)
    for label, spread in sorted(spreads.items()):
        total, buckets = 0, []
        for bound in (*map(repr, bounds), BEYOND):
            total += spread.buckets[bound]
            buckets.append((bound, total))
        made.add_metric([label], buckets, spread.seconds)
    return made


def _of_queues(queues: list[QueueSnapshot]) -> Iterator[Metric]:
    levels = [(queue, str(priority), waiting) for queue in queues for priority, waiting in queue.waiting.items()]
    yield family("taskapp_queue_depth", {(queue.name, level): waiting.depth for queue, level, waiting in levels})
    # An unknown age is not an age of 0.
    oldest = {
        (queue.name, level): waiting.oldest_seconds or 0.0
        for queue, level, waiting in levels
        if waiting.oldest_seconds is not None or not waiting.depth
    }
    yield family("taskapp_queue_oldest_seconds", oldest)
    yield family("taskapp_queue_delayed", {(queue.name,): queue.delayed for queue in queues})
    late = {(queue.name,): max(0.0, -(queue.next_due_seconds or 0.0)) for queue in queues}
    yield family("taskapp_queue_delayed_late_seconds", late)
    yield family("taskapp_queue_blocked", {(queue.name,): queue.blocked for queue in queues})
    yield family("taskapp_queue_parked", {(queue.name,): queue.parked_depth for queue in queues})
    oldest_parked = {
        (queue.name,): max((each.oldest_seconds for each in queue.parked.values()), default=0.0) for queue in queues
    }
    yield family("taskapp_queue_parked_oldest_seconds", oldest_parked)
    # Include zeros: a series that begins above 0 has not increased, so no rule would see it.
    dead = {(queue.name, reason): queue.dead.get(reason, 0) for queue in queues for reason in REASONS}
    yield family("taskapp_dead_letters", dead)


def _of_limits(limits: Sequence[LimitRow], counts: Mapping[str, int], queues: Collection[str]) -> Iterator[Metric]:
    blocked = Counter[tuple[str, str]]()
    for number, limit in enumerate(limits):
        blocked[type_label(limit.name) if number < LIMITS_MOST else OTHER, limit.kind] += limit.blocked
    yield family("taskapp_limit_blocked", blocked)
    # Include zeros: a series that begins above 0 has not increased, so no rule would see it.
    full = Counter({(queue,): 0 for queue in queues})
    for name, count in counts.items():
        what, _, queue = name.partition(":")
        if what == "full":
            full[(_queue_label(queue, queues),)] += count
    yield family("taskapp_queue_full_total", full)


def _of_nodes(snapshot: Snapshot) -> Iterator[Metric]:
    states = Counter(node.state for node in snapshot.nodes)
    yield family("taskapp_nodes", {(state,): states[state] for state in ("running", "draining", "lost")})
    taken = snapshot.takers()
    yield family("taskapp_queue_nodes", {(queue.name,): taken[queue.name] for queue in snapshot.queues})
    slots, used = Counter[str](), Counter[str]()
    for node in snapshot.nodes:
        if node.state != "lost":
            slots.update(node.slots)
            used.update(node.used)
    yield family("taskapp_slots", {(kind,): number for kind, number in sorted(slots.items())})
    yield family("taskapp_slots_used", {(kind,): used[kind] for kind in sorted(slots)})
    yield family("taskapp_messages_held", {(): sum(node.held for node in snapshot.nodes)})
    yield family("taskapp_leases_lost_total", {(): snapshot.counts.get("lost_leases", 0)})
    dropped = {(reason,): snapshot.counts.get(f"dropped:{reason}", 0) for reason in REASONS}
    yield family("taskapp_dead_letters_dropped_total", dropped)


def _of_schedules(seen: Overview) -> Iterator[Metric]:
    yield family("taskapp_schedules", {(state,): number for state, number in seen.states.items()})
    yield family("taskapp_beat_lateness_seconds", {(): seen.late_seconds})
    yield family("taskapp_beat_last_tick_timestamp_seconds", {(): seen.tick_at or 0.0})


def _of_history(finished: Backlog) -> Iterator[Metric]:
    yield family("taskapp_history_waiting", {(): finished.records})
    yield family("taskapp_history_oldest_seconds", {(): finished.oldest_seconds})
    yield family("taskapp_history_dropped_total", {(): finished.dropped})
    yield family("taskapp_history_aside_total", {(): finished.aside})


def of_outbox(backlog: OutboxBacklog) -> Iterator[Metric]:
    """Yield the metric families of the outbox."""
    yield family("taskapp_outbox_waiting", {(): backlog.waiting})
    yield family("taskapp_outbox_oldest_seconds", {(): backlog.oldest_seconds})
    yield family("taskapp_outbox_refused", {(): backlog.refused})


def _of_redis(info: Mapping[str, str]) -> Iterator[Metric]:
    yield family("taskapp_redis_memory_bytes", _number(info, "used_memory"))
    yield family("taskapp_redis_memory_limit_bytes", _number(info, "maxmemory"))
    yield family("taskapp_redis_evicted_keys_total", _number(info, "evicted_keys"))
    last = {info.get(name, "ok") for name in ("rdb_last_bgsave_status", "aof_last_write_status")}
    yield family("taskapp_redis_persistence_failing", {(): float(last != {"ok"})})
    unsaved = _number(info, "rdb_changes_since_last_save") if info.get("aof_enabled") == "0" else {(): 0.0}
    yield family("taskapp_redis_unsaved_changes", unsaved)
    yield family("taskapp_redis_last_save_timestamp_seconds", _number(info, "rdb_last_save_time"))


def _number(info: Mapping[str, str], name: str) -> Samples:
    return {(): float(info[name])} if name in info else {}


def _queue_label(queue: str, queues: Collection[str]) -> str:
    return queue if queue in queues else OTHER
