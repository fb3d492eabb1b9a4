"""Celery's events to counts. Knows which type and queue an id had, for a bounded number of ids."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.events import EventReceiver

from taskapp.monitor.metrics import Metrics
from taskapp.queues import queue_for

MAX_REMEMBERED_TASKS = 50_000
MISSED_HEARTBEATS = 3
HEARTBEAT_SECONDS = 2.0
"""What a node announces when it does not say."""

Event = dict[str, Any]


class Receiver(EventReceiver):
    """Celery's receiver, but each event reaches ``counter`` just as it was sent.

    Celery's own fails at the first malformed event, and moves every timestamp by the sender's
    offset from UTC although it is Unix time already: a task submitted in Tokyo would have waited
    nine hours.
    """

    queue: Any  # set by Celery's constructor, as is the next
    accept: Any

    def __init__(self, connection: Any, app: Celery, counter: EventCounter) -> None:
        super().__init__(connection, app=app)
        self._counter = counter

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: ARG002, N803 - the signature is kombu's
        """Return one consumer of this receiver's own queue."""
        return [Consumer(queues=[self.queue], callbacks=[self._count], no_ack=True, accept=self.accept)]

    def _count(self, body: Any, _message: Any) -> None:
        # Nodes send their events in batches, publishers one by one.
        for event in body if isinstance(body, list) else [body]:
            self._counter(event)


@dataclass
class _Known:
    type: str | None = None
    queue: str | None = None
    sent_at: float | None = None
    """When it was submitted, Unix seconds by the publisher's clock; ``None`` when waiting says nothing."""
    started_at: float | None = None
    """When it first started, by the node's clock."""
    wait_is_counted: bool = False


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
        for task_type, queue in routes.items():
            if not any(sign in task_type for sign in "*?["):
                metrics.appear(metrics.type_label(task_type), metrics.queue_label(queue))

    def __call__(self, event: object) -> None:
        """Count ``event``; unknown kinds count as read, malformed ones as invalid too."""
        self._metrics.count("taskapp_exporter_events_total")
        self._metrics.set("taskapp_exporter_last_event_timestamp_seconds", time.time())
        try:
            if not isinstance(event, dict):
                raise TypeError("an event is a mapping")
            handler = self._handlers.get(event["type"])
            if handler is not None:
                handler(event)
        except (KeyError, TypeError, ValueError, AttributeError):
            # Whoever reaches the broker can publish anything; it must not blind the exporter.
            self._metrics.count("taskapp_exporter_events_invalid_total")

    def nodes_up(self) -> int:
        """Return how many nodes sent a heartbeat lately."""
        now = time.monotonic()
        return sum(until > now for until in list(self._nodes.values()))

    def _sent(self, event: Event) -> None:
        known = self._remember(event)
        # A task with a due time waits because it was asked to, a retry was sent before it failed.
        if not event.get("eta") and not event.get("retries"):
            known.sent_at = float(event["timestamp"])
            self._count_wait(known)

    def _received(self, event: Event) -> None:
        known = self._remember(event)
        self._metrics.count("taskapp_tasks_received_total", *self._labels(known))

    def _started(self, event: Event) -> None:
        known = self._known.get(event["uuid"])
        if known is not None and known.started_at is None:
            known.started_at = float(event["timestamp"])
            self._count_wait(known)

    def _count_wait(self, known: _Known) -> None:
        # A quick node starts a task before its publisher's event is here, so either may be first.
        if known.sent_at is not None and known.started_at is not None and not known.wait_is_counted:
            known.wait_is_counted = True
            queue = self._metrics.queue_label(known.queue)
            self._metrics.observe("taskapp_task_queue_wait_seconds", queue, known.started_at - known.sent_at)

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
        now = time.monotonic()
        alive_seconds = MISSED_HEARTBEATS * float(event.get("freq") or HEARTBEAT_SECONDS)
        self._nodes[event["hostname"]] = now + alive_seconds
        for name in [name for name, until in self._nodes.items() if until <= now]:
            del self._nodes[name]

    def _gone(self, event: Event) -> None:
        self._nodes.pop(event["hostname"], None)

    def _remember(self, event: Event) -> _Known:
        known = self._known.setdefault(event["uuid"], _Known())
        self._known.move_to_end(event["uuid"])
        known.type = event.get("name") or known.type
        known.queue = event.get("queue") or event.get("routing_key") or known.queue or self._route(known.type)
        while len(self._known) > self._max_tasks:
            self._known.popitem(last=False)
        self._metrics.appear(*self._labels(known))
        return known

    def _route(self, task_type: str | None) -> str | None:
        # The publisher's event may come after the node's, which does not name the queue.
        return queue_for(task_type, self._routes) if task_type else None

    def _labels(self, known: _Known) -> tuple[str, str]:
        return self._metrics.type_label(known.type), self._metrics.queue_label(known.queue)
