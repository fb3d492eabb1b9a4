"""Messages written down as JSON, to be published later: by a relay of the outbox, or by the leader of the schedules.

    submit ──► Recorder, instead of kombu's producer ──► JSON, kept somewhere ──► Publisher ──► broker, confirmed

Arguments are checked and encoded, and signals sent, where a message is written down; the broker is not contacted.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import time
from typing import Any

from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.serialization import dumps

from taskapp.celery_internals import announcer
from taskapp.client.protocol import compressed
from taskapp.engine.settlement import settling
from taskapp.errors.publishing import BrokerAway, RefusedByBroker
from taskapp.transport.codec import SENT_AT_HEADER

CONFIRM_SECONDS = 1.5
"""How long the broker may take to confirm a message."""
ADDED_AT_PUBLISHING = ("declare", "retry", "retry_policy", "timeout", "confirm_timeout")
OF_THE_DISPATCHER = ("type", "hostname", "pid", "clock", "utcoffset", "timestamp")

Written = dict[str, Any]
"""A message: ``body`` (text, or bytes in Base64), ``is_text``, ``queues`` to declare, and ``options`` of kombu's
``publish``."""


class Recorder:
    """Stands in for kombu's producer and writes down what it is asked to publish."""

    channel = None
    """Tells the sender that no engine takes these messages."""

    def __init__(self, app: Any) -> None:
        self.connection = app.connection_for_write()  # does not connect
        self._limit_bytes = app.settings.max_unpacked_bytes
        self.tasks: list[Written] = []
        self.events: list[Mapping[str, Any]] = []
        """Fields of the event ``task-sent`` of each task, if the app publishes these."""

    def publish(self, body: Any, *, serializer: str | None = None, **options: Any) -> None:
        """Write down a message.

        Raises:
            kombu.exceptions.EncodeError: The format cannot represent it.
            PayloadTooLarge: It would be too large for nodes once decompressed.
        """
        if "task" not in (options.get("headers") or {}):
            self.events.append({key: value for key, value in body.items() if key not in OF_THE_DISPATCHER})
            return
        if "content_type" not in options:
            options["content_type"], options["content_encoding"], body = dumps(body, serializer=serializer)
        headers = dict(options["headers"])
        body = compressed(body, options.pop("compression", None), headers, self._limit_bytes)
        self.tasks.append(_written(body, {**options, "headers": headers}))


_recorder: ContextVar[Recorder | None] = ContextVar("taskapp_recorder", default=None)
current_recorder = _recorder.get
"""Returns the recorder of this context; ``None``: tasks are sent."""


def recorded(app: Any, send: Callable[[Recorder], Any]) -> tuple[Any, Recorder]:
    """Call ``send`` and record all tasks it submits; return its result and the recorder.

    ``send`` gets the recorder, to pass it on as the producer: Celery would take one from a pool, and connect.
    """
    recorder = Recorder(app)
    token = _recorder.set(recorder)
    try:
        with settling(None):  # else a running task would take these messages as its own follow-ups
            return send(recorder), recorder
    finally:
        _recorder.reset(token)


def _written(body: Any, options: dict[str, Any]) -> Written:
    queues = [each.name for each in options.get("declare") or () if isinstance(each, Queue)]
    options = {key: value for key, value in options.items() if key not in ADDED_AT_PUBLISHING}
    if options["headers"].get("expires"):
        # The broker would drop an expired message silently; a node reports it.
        options.pop("expiration", None)
    options["exchange"] = getattr(options.get("exchange"), "name", options.get("exchange"))
    is_text = isinstance(body, str)
    return {
        "body": body if is_text else b64encode(body).decode(),
        "is_text": is_text,
        "queues": queues,
        "options": options,
    }


def body_of(written: Mapping[str, Any]) -> str | bytes:
    """Return the body of a message; errors are ``ValueError``, ``KeyError`` and ``TypeError``."""
    body: str = written["body"]
    return body if written["is_text"] else b64decode(body)


class Publisher:
    """Publishes written messages to the broker of ``app``, through kombu."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def reach(self) -> None:
        """Connect, unless connected.

        Raises:
            BrokerAway: The broker cannot be reached, or refuses the login.
        """
        try:
            with self._app.lend_producer() as producer:
                _connect(producer)
        except Exception as error:  # includes a refused login, which no message has caused
            raise BrokerAway(error) from error

    def publish(
        self, written: Written, event: Mapping[str, Any] | None, headers: Callable[[], Mapping[str, Any]] = dict
    ) -> None:
        """Publish a message and wait until the broker has confirmed it.

        Args:
            written: The message.
            event: Fields of its event ``task-sent``; ``None``: publish none.
            headers: Returns additional headers, for each attempt.

        Raises:
            BrokerAway: The broker cannot be reached, or accepts nothing now.
            RefusedByBroker: The broker refuses this message.
            ValueError, KeyError, TypeError: The message is malformed.
        """
        body = body_of(written)
        options = {**written["options"], "declare": self._declared(written["queues"])}
        self.reach()
        with self._app.lend_producer() as producer:

            def publish_copy() -> None:
                own = {**options["headers"], SENT_AT_HEADER: time(), **headers()}
                producer.publish(body, **{**options, "headers": own, "confirm_timeout": CONFIRM_SECONDS})
                if event is not None:
                    self._announce(producer, event)

            _insist(producer, publish_copy)

    def _declared(self, names: list[str]) -> list[Queue]:
        queues = self._app.amqp.queues
        return [queues[name] for name in names if name in queues]

    def _announce(self, producer: Any, event: Mapping[str, Any]) -> None:
        announcer(self._app.amqp).publish("task-sent", event, producer)


def _connect(producer: Any) -> None:
    """Reconnect if the connection is known to be lost, within a second or two."""
    if not producer.connection.connected:
        producer.connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        producer.revive(producer.connection)


def _insist(producer: Any, publish: Callable[[], None]) -> None:
    """Call ``publish``, and retry once over a new connection if the current one is broken.

    Raises:
        BrokerAway, RefusedByBroker: See ``Publisher.publish``.
    """
    connection = producer.connection
    try:
        connection.ensure(producer, publish, max_retries=1, interval_start=0, interval_step=0)()
    except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
        if isinstance(error.__cause__ or error, connection.channel_errors):
            raise RefusedByBroker(error) from error
        raise BrokerAway(error) from error
