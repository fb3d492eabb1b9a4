"""Celery's events to counts. Knows which type and queue an id had, for a bounded number of ids."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from taskapp.monitor.metrics import Metrics
from taskapp.queues import queue_for

MAX_REMEMBERED_TASKS = 50_000
MISSED_HEARTBEATS = 3
HEARTBEAT_SECONDS = 2.0
"""What a node announces when it does not say."""

Event = dict[str, Any]


@dataclass
class _Known:
    type: str | None = None
    queue: str | None = None
    sent_at: float | None = None
    """When it was submitted, Unix seconds by the publisher's clock; ``None`` when waiting says nothing."""


class EventCounter:
    """Counts one event after the other. Use from one thread; ``nodes_up`` from any.

    Events of publishers, and of the processes of a node, come in no fixed order: an id is
    remembered after it finished, until ``max_tasks`` newer ones came.
    """

    def __init__(self, metrics: Metrics, routes: dict[str, str], *, max_tasks: int = MAX_REMEMBERED_TASKS) -> None:
        self._metrics = metrics
        self._routes = routes
        self._max_tasks = max_tasks
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._nodes: dict[str, float] = {}
        self._handlers = {
            "task-sent": self._sent,
            "task-received": self._received,
            "task-started": self._started,
            "task-succeeded": self._succeeded,
            "task-failed": self._failed,
            "task-retried": self._retried,
            "worker-online": self._seen,
            "worker-heartbeat": self._seen,
            "worker-offline": self._gone,
        }

    def __call__(self, event: Event) -> None:
        """Count ``event``; unknown kinds count as read."""
        self._metrics.count("taskapp_exporter_events_total")
        self._metrics.set("taskapp_exporter_last_event_timestamp_seconds", time.time())
        handler = self._handlers.get(event.get("type", ""))
        if handler is not None:
            handler(event)

    def nodes_up(self) -> int:
        """Return how many nodes sent a heartbeat lately."""
        now = time.monotonic()
        self._nodes = {name: until for name, until in list(self._nodes.items()) if until > now}
        return len(self._nodes)

    def _sent(self, event: Event) -> None:
        known = self._remember(event)
        # A task with a due time waits because it was asked to, a retry was sent before it failed.
        if not event.get("eta") and not event.get("retries"):
            known.sent_at = event.get("timestamp")

    def _received(self, event: Event) -> None:
        known = self._remember(event)
        if event.get("eta"):
            known.sent_at = None
        self._metrics.count("taskapp_tasks_received_total", *self._labels(known))

    def _started(self, event: Event) -> None:
        known = self._known.get(event["uuid"])
        if known is not None and known.sent_at is not None:
            queue = self._metrics.queue_label(known.queue)
            self._metrics.observe("taskapp_task_queue_wait_seconds", queue, event["timestamp"] - known.sent_at)
            known.sent_at = None

    def _succeeded(self, event: Event) -> None:
        known = self._known.get(event["uuid"], _Known())
        self._metrics.count("taskapp_tasks_completed_total", *self._labels(known))
        if event.get("runtime") is not None:
            self._metrics.observe("taskapp_task_run_seconds", self._metrics.type_label(known.type), event["runtime"])

    def _failed(self, event: Event) -> None:
        known = self._known.get(event["uuid"], _Known())
        self._metrics.count("taskapp_tasks_failed_total", *self._labels(known))

    def _retried(self, event: Event) -> None:
        known = self._known.get(event["uuid"], _Known())
        self._metrics.count("taskapp_tasks_retried_total", *self._labels(known))

    def _seen(self, event: Event) -> None:
        alive_seconds = MISSED_HEARTBEATS * float(event.get("freq") or HEARTBEAT_SECONDS)
        self._nodes[event["hostname"]] = time.monotonic() + alive_seconds

    def _gone(self, event: Event) -> None:
        self._nodes.pop(event["hostname"], None)

    def _remember(self, event: Event) -> _Known:
        known = self._known.setdefault(event["uuid"], _Known())
        self._known.move_to_end(event["uuid"])
        known.type = event.get("name") or known.type
        known.queue = event.get("queue") or event.get("routing_key") or known.queue or self._route(known.type)
        while len(self._known) > self._max_tasks:
            self._known.popitem(last=False)
        return known

    def _route(self, task_type: str | None) -> str | None:
        # The publisher's event may come after the node's, which does not name the queue.
        return queue_for(task_type, self._routes) if task_type else None

    def _labels(self, known: _Known) -> tuple[str, str]:
        return self._metrics.type_label(known.type), self._metrics.queue_label(known.queue)
