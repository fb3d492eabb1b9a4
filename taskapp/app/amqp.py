"""Sending through kombu with taskapp's connections; messages that a run collects are sent when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.app.amqp import AMQP
from kombu import Queue
from kombu.utils.objects import cached_property

from taskapp.client.deferred_publish import CollectingProducer
from taskapp.client.option_checks import check_priority
from taskapp.client.sent_event import SentEventDispatcher
from taskapp.client.written_messages import current_recorder
from taskapp.engine import settlement
from taskapp.engine.headers import escape_shown
from taskapp.errors.publishing import Unroutable
from taskapp.results.literal_dicts import as_literal
from taskapp.transport.transport import Connection, is_over_redis


class Amqp(AMQP):
    """Celery's AMQP with taskapp's connections."""

    Connection = Connection

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        # Nodes find a task's id in the headers, which protocol 1 leaves empty. Celery 4 and later read protocol 2.
        self.task_protocols: dict[int, Any] = dict.fromkeys((1, 2), self.as_task_v2)

    def _retry_publish(self, publish: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Send the follow-ups of a task, links and the rest of its chain, in the step that settles it."""
        with settlement.collecting():
            return super()._retry_publish(publish, *args, **kwargs)  # type: ignore[misc]  # missing in the stubs

    @cached_property
    def _event_dispatcher(self) -> SentEventDispatcher:
        return SentEventDispatcher(super()._event_dispatcher)  # type: ignore[misc]  # missing in the stubs

    @cached_property
    def send_task_message(self) -> Any:
        """Function that sends a task through kombu; unless the broker is Redis, follow-ups wait for their run."""
        app: Any = self.app
        send = self._create_task_sender()  # type: ignore[attr-defined]  # missing in the stubs

        def send_or_collect(producer: Any, name: str, message: Any, *args: Any, **options: Any) -> Any:
            check_priority(name, options.get("priority"))
            if (exchange := options.get("exchange")) and not options.get("queue"):
                options.setdefault("declare", self._queues_of(exchange))
            _drop_own_parent(message.headers, message.sent_event)
            escape_shown(message.headers)
            run = settlement.current()
            if app.writes_json(options.get("serializer") or self.app.conf.task_serializer):
                message = message._replace(body=as_literal(message.body))
            if not is_over_redis(self.app.conf.broker_url):
                if run is not None:
                    producer = CollectingProducer(producer, run)
                elif current_recorder() is None:
                    options.setdefault("mandatory", True)  # so that the caller learns that no queue would get it
            if (signing := app.signing) is not None:
                producer = signing.producer(producer)
            try:
                return send(producer, name, message, *args, **options)
            except Unroutable:
                # Redis may have lost its bindings, in a restart without its data, and kombu does not write them again.
                if (queue := self._meant_by(options)) is None:
                    raise
                plain = {"queue": queue, "exchange": None, "exchange_type": "direct", "routing_key": None}
                return send(producer, name, message, *args, **{**options, **plain, "declare": None})

        return send_or_collect

    def _meant_by(self, options: dict[str, Any]) -> Any:
        """Return the declared queue that a task with these options is for; ``None`` if they name no single one."""
        if exchange := options.get("exchange"):  # a route may have added the default queue
            of_exchange = self._queues_of(exchange)
            return next((one for one in of_exchange if one.routing_key == options.get("routing_key")), None)
        queue = options.get("queue")
        return queue if queue is None or isinstance(queue, Queue) else self.queues[queue]

    def _queues_of(self, exchange: Any) -> list[Any]:
        """Return the declared queues that are bound to ``exchange``, for the broker may not know them yet."""
        wanted = getattr(exchange, "name", exchange)
        return [queue for queue in self.queues.values() if queue.exchange is not None and queue.exchange.name == wanted]


def _drop_own_parent(*contents: dict[str, Any] | None) -> None:
    """Remove ``parent_id`` where it is the task itself, as Celery sets it in a retry."""
    for each in contents:
        if each and each.get("parent_id") == each.get("id", each.get("uuid")):
            each["parent_id"] = None
