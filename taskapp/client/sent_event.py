"""Celery's event ``task-sent`` in kombu's format; it is published in the same step as its message."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from time import monotonic, time
from typing import Any, NamedTuple

from amqp.exceptions import AMQPError
from celery.utils.time import utcoffset
from kombu.exceptions import OperationalError

from taskapp.engine.producer import Message
from taskapp.transport.codec import to_json
from taskapp.transport.rabbitmq import submitting

logger = logging.getLogger(__name__)

EVENT_SECONDS = 0.5
QUARTER_HOUR_SECONDS = 900
"""The UTC offset of a zone changes only at full quarters of an hour."""


class SentEvents(NamedTuple):
    """Turns events of sent tasks into publications: one like Celery's clients, several like Celery's workers."""

    topic: str
    """Redis channel for one event."""
    topic_of_many: str
    """Redis channel for a list of events."""
    exchange: str
    hostname: str

    def publication(self, messages: Sequence[Message]) -> tuple[str, bytes]:
        """Return the channel and the kombu message with the events of ``messages``."""
        if len(messages) == 1:
            topic, key, body = self.topic, "task.sent", messages[0].event
        else:
            topic, key = self.topic_of_many, "task.multi"
            body = b"[%b]" % b",".join([message.event for message in messages])
        # The tag is never acknowledged, but each one must be different.
        return topic, event_message(body, self.exchange, self.hostname, key, to_json(messages[0].id))


def event_message(body: bytes, exchange: str, hostname: str, routing_key: str, tag: bytes) -> bytes:
    """Return kombu's message with the event, or list of events, in ``body``; ``tag`` is JSON, too."""
    return b'{"body":%b,%b,"delivery_tag":%b}}' % (
        to_json(body.decode()),
        _envelope(exchange, hostname, routing_key),
        tag,
    )


@lru_cache(maxsize=16)
def _envelope(exchange: str, hostname: str, key: str) -> bytes:
    """Return the part of kombu's message between its body and its delivery tag."""
    properties = {
        "delivery_mode": 1, "delivery_info": {"exchange": exchange, "routing_key": key}, "priority": 0,
        "body_encoding": None,
    }  # fmt: skip
    message = {
        "content-encoding": "utf-8", "content-type": "application/json", "headers": {"hostname": hostname},
        "properties": properties,
    }  # fmt: skip
    return to_json(message)[1:-2]


def usual_part(hostname: str, pid: int, name: str, queue: str) -> bytes:
    """Return the common beginning of the events of all tasks of a type, see ``sent_event``."""
    usual = {
        "hostname": hostname, "pid": pid, "name": name, "queue": queue, "exchange": "", "routing_key": queue,
        "type": "task-sent",
    }  # fmt: skip
    return to_json(usual)[:-1]


def sent_event(usual: bytes, clock: int, retries: Any, headers: dict[str, Any]) -> bytes:
    """Return the event of the task with these headers.

    Args:
        usual: Result of ``usual_part``.
        clock: The app's logical time.
        retries: Number of earlier runs of the task.
        headers: Headers of the task, see ``packed_template.OWN_HEADERS``.
    """
    now = time()
    own = {
        "utcoffset": _utcoffset(int(now) // QUARTER_HOUR_SECONDS),
        "clock": clock,
        "uuid": headers["id"],
        "root_id": headers["root_id"],
        "parent_id": headers["parent_id"],
        "args": headers["argsrepr"],
        "kwargs": headers["kwargsrepr"],
        "retries": retries,
        "eta": headers["eta"],
        "expires": headers["expires"],
        "timestamp": now,
    }
    return b"%b,%b" % (usual, to_json(own)[1:])


@lru_cache(maxsize=1)
def _utcoffset(_quarter: int) -> int:
    return int(utcoffset())


class SentEventDispatcher:
    """Publishes events of tasks sent to a broker other than Redis; losing an event does not affect its task.

    Args:
        dispatcher: Celery's dispatcher.
    """

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        # Each event has its own producer, so no lock is needed. A child forked while another thread publishes, perhaps
        # for seconds, would find the lock taken forever.
        dispatcher.mutex = nullcontext()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatcher, name)

    def publish(self, type: str, fields: Any, producer: Any, **options: Any) -> None:
        """Publish an event; drop it if the broker does not accept it within ``EVENT_SECONDS``."""
        try:
            with submitting(monotonic() + EVENT_SECONDS):
                self._dispatcher.publish(type, fields, producer, **{**options, "retry": False})
        except (OperationalError, AMQPError, OSError) as error:
            logger.warning("event %s of task %s is lost: %s", type, fields.get("uuid"), error)
