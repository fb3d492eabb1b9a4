"""Turns each message of a task type into a request and passes it to the pool."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from celery import signals
from celery.app import trace
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from celery.utils.time import timezone
from celery.worker import state as worker_state
from celery.worker import strategy as stock
from kombu.asynchronous.timer import to_timestamp

from taskapp.celery_internals import context_of, hold_for_rate, holds_due_for_rate, note_timer
from taskapp.client.protocol import priority_of
from taskapp.engine.headers import check_foreign_headers
from taskapp.logs.task_lines import task_lines
from taskapp.transport.limits_header import is_rated
from taskapp.transport.message import Received
from taskapp.worker.consume.events import wants_task_events
from taskapp.worker.consume.request_class import makes_itself, request_class

# The stubs are incomplete.
_stock: Any = stock
state: Any = worker_state
# Users' logging configuration refers to this name.
logger = get_logger("celery.worker.strategy")


class Strategy:
    """Handles the messages of one task type: logs them, sends their events and passes them to the pool."""

    def __init__(self, task: Any, app: Any, consumer: Any, **_: Any) -> None:
        self._task, self._app, self._consumer = task, app, consumer
        self._request_class = request_class(symbol_by_name(task.Request))
        self._makes_itself = makes_itself(self._request_class)
        self._eventer = consumer.event_dispatcher
        self._announces = bool(self._eventer and self._eventer.enabled and task.send_events)
        self._logs = logger.isEnabledFor(logging.INFO)
        self._limits = getattr(task, "declared_limits", None)

    def __call__(self, message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> None:
        """Handle one message."""
        request = self._request(message, body, ack, reject)
        if isinstance(message, Received) and (due := message.as_sent.get("eta")):
            request.request_dict["eta"] = due  # for the task; the request has none, as it is due
        if self._logs:
            self._log(request)
        if (request.expires or request.id in state.revoked) and request.revoked():
            return
        if signals.task_received.receivers:
            signals.task_received.send(sender=self._consumer, request=request)
        if self._announces and wants_task_events(self._eventer):
            self._announce(request)
        if request.eta is None:
            self._pass_on(request, callbacks)
        elif (due_at := self._due_at(request)) is not None:
            self._hold(request, due_at)

    def _request(self, message: Any, body: Any, ack: Any, reject: Any) -> Any:
        if isinstance(message, Received) and not self._makes_itself:
            return self._request_class.of_claim(message, self._task, self._app, self._consumer.hostname, self._eventer)
        if body is None and "args" not in message.payload:
            parts = message.body, message.headers, False, self._app.uses_utc_timezone()
        elif "args" in message.payload:
            parts = _stock.hybrid_to_proto2(message, message.payload)
        else:
            parts = _stock.proto1_to_proto2(message, body)
        body, headers, decoded, utc = parts
        if decoded:
            # Protocol 1: the headers came in the body.
            check_foreign_headers(headers)
        request = self._request_class(
            message, on_ack=ack, on_reject=reject, app=self._app, hostname=self._consumer.hostname,
            eventer=self._eventer, task=self._task, connection_errors=self._consumer.connection_errors,
            body=body, headers=headers, decoded=decoded, utc=utc,
        )  # fmt: skip
        if (priority := request.delivery_info.get("priority")) is not None:
            # RabbitMQ lets others send any byte, but retries and tasks that inherit it could not be submitted with it.
            request.delivery_info["priority"] = priority_of(priority)
        return request

    def _log(self, request: Any) -> None:
        context = {
            "id": request.id, "name": request.name, "args": request.argsrepr, "kwargs": request.kwargsrepr,
            "eta": request.eta,
        }  # fmt: skip
        # Only a claim that is settled after its run has its lines written first, by the pool and the engine.
        may_wait = self._task.acks_late and isinstance(request.message, Received)
        task_lines.received(logger, trace.LOG_RECEIVED, context, may_wait=may_wait)

    def _announce(self, request: Any) -> None:
        self._eventer.send(
            "task-received", uuid=request.id, name=request.name, args=request.argsrepr, kwargs=request.kwargsrepr,
            root_id=request.root_id, parent_id=request.parent_id, retries=request.request_dict.get("retries", 0),
            eta=_isoformat(request.eta), expires=_isoformat(request.expires),
        )  # fmt: skip

    def _pass_on(self, request: Any, callbacks: Any) -> None:
        if bucket := self._bucket(request):
            hold_for_rate(self._consumer, request, bucket)
            return
        state.task_reserved(request)
        for callback in callbacks or ():
            callback(request)
        self._consumer.on_task_request(request)

    def _bucket(self, request: Any) -> Any:
        """Return the rate limit of this node that ``request`` waits for; ``None``: it has none, or has waited already.

        A message whose rate the engine counts has been claimed at its turn.
        """
        bucket = None if self._consumer.disable_rate_limits else self._consumer.task_buckets[self._task.name]
        return None if bucket and self._limits is not None and is_rated(request.request_dict) else bucket

    # --- brokers that keep no delayed messages ----------------------------------------------------

    def _due_at(self, request: Any) -> float | None:
        """Return when ``request`` is due (Unix seconds); if that is out of range, fail the task and return ``None``."""
        try:
            if request.utc:
                return to_timestamp(timezone.to_system(request.eta))
            return to_timestamp(request.eta, self._app.timezone)
        except (OverflowError, ValueError) as error:
            logger.error("task %s[%s] has an invalid ETA %r: %s", request.name, request.id, request.eta, error)
            self._task.backend.mark_as_failure(
                request.id, error, request=context_of(request), store_result=request.store_errors
            )
            request.reject(requeue=False)
            return None

    def _hold(self, request: Any, due_at: float) -> None:
        consumer, bucket = self._consumer, self._bucket(request)
        consumer.qos.increment_eventually()
        target, args = (
            (holds_due_for_rate(consumer), (request, bucket, 1)) if bucket else (consumer.apply_eta_task, (request,))
        )
        note_timer(request, consumer.timer.call_at(due_at, target, args, priority=6))
        # Last: losing the connection cancels the timers of scheduled tasks.
        state.task_scheduled(request)


def _isoformat(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
