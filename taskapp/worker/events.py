"""Celery's events, published over the engine's connection without kombu's detours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from celery.app import events as stock_app
from celery.events import dispatcher as stock

from taskapp.broker.channel import EngineChannel
from taskapp.broker.message_format import to_json
from taskapp.client.sent_event import event_message

# The stubs lack half of both.
_Events: Any = stock_app.Events
_Dispatcher: Any = stock.EventDispatcher


NO_ERROR = {"exception": None, "traceback": None}


class Dispatcher(_Dispatcher):
    """Sends events: those of one turn of the loop at once."""

    def _publish(self, event: Any, producer: Any, routing_key: str, *args: Any, **options: Any) -> None:
        channel = producer.channel if producer is not None else None
        if not isinstance(channel, EngineChannel) or self.serializer != "json":
            super()._publish(event, producer, routing_key, *args, **options)
            return
        # Any tag will do, for nobody acknowledges an event.
        message = event_message(_json(event), self.exchange.name, self.hostname, routing_key, b'"event"')
        channel.publish_event(self.exchange.name, routing_key, message)


def _json(event: Any) -> bytes:
    try:
        return to_json(event)
    except UnicodeEncodeError:
        # Half of a pair of surrogates, in the text of an error for example: Python's own encoder escapes it.
        return json.dumps(event, default=str).encode()


def wants_task_events(eventer: Any) -> bool:
    """Return whether events of tasks go out, which remote control may change at any time."""
    return eventer is not None and eventer.enabled and (not eventer.groups or "task" in eventer.groups)


def after_retries(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what else an event of a success says: the errors that earlier runs were retried for are over."""
    return NO_ERROR if headers.get("retries") else {}


class Events(_Events):
    """Celery's events with our dispatcher."""

    dispatcher_cls = "taskapp.worker.events:Dispatcher"
