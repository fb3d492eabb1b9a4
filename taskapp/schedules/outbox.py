"""The outbox, where ticks wait for a broker other than Redis.

The script that queues ticks works in one Redis. So it queues them there, in the outbox. The leader publishes its
entries, the oldest first, and removes each once the broker has confirmed it. If a leader dies in between, the next one
publishes the entry again: with the same task id but another copy id in a header, so that nodes can distinguish the two.
"""

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from time import monotonic, time
from typing import Any

from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps, loads

from taskapp.celery_internals import announcer
from taskapp.client.deferred_publish import Posting
from taskapp.client.protocol import new_id
from taskapp.engine.producer import Message
from taskapp.engine.settlement import COPY_HEADER, Settlement, TickName, collecting, settling, tick_of
from taskapp.errors.schedules import BrokerAway, RefusedByBroker
from taskapp.queues import OUTBOX
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from taskapp.transport.codec import SENT_AT_HEADER

PUBLISHED_AT_ONCE = 100
CONFIRM_SECONDS = 1.5
"""How long the broker may take to confirm a message; two attempts fit within the leader's lease."""
REFUSED_KEPT = 1_000
ADDED_AT_PUBLISHING = ("declare", "retry", "retry_policy", "timeout", "confirm_timeout")
OF_THE_DISPATCHER = ("type", "hostname", "pid", "clock", "utcoffset", "timestamp")

logger = logging.getLogger(__name__)


class Outbox:
    """The leader's access to the outbox.

    Args:
        link: Connection to the Redis of the schedules.
        prefix: Prefix of the keys.
        broker: Publishes the entries.
    """

    def __init__(self, link: Link, prefix: str, broker: Broker) -> None:
        self._link, self._prefix, self._broker = link, prefix, broker
        keys = Keys(prefix)
        self._key = keys.ready(OUTBOX)
        self.wake_key = keys("wake", OUTBOX)
        """Key of a list that gets a token whenever an entry is added to the outbox."""
        self.may_hold_some = True
        self._away_since: float | None = None
        """Since when the broker has been unreachable (monotonic)."""

    def away_seconds(self) -> float:
        """Return for how long the broker has been unreachable; 0 if it accepted the last message."""
        return 0.0 if self._away_since is None else monotonic() - self._away_since

    def reach(self) -> None:
        """If the broker was unreachable, check whether it is back.

        Raises:
            BrokerAway: The broker is still unreachable.
        """
        if self._away_since is not None:
            self._broker.reach()
            self._away_since = None

    def forward(self, until: float) -> None:
        """Publish up to ``PUBLISHED_AT_ONCE`` entries, the oldest first; stop at ``until`` (monotonic).

        Raises:
            BrokerAway: The broker is unreachable; unpublished entries stay.
        """
        found = self._link.command("LRANGE", self._key, -PUBLISHED_AT_ONCE, -1)
        for entry in reversed(found):
            if monotonic() >= until:
                return
            self._forward(entry)
        self.may_hold_some = len(found) == PUBLISHED_AT_ONCE

    def _forward(self, entry: bytes) -> None:
        try:
            self._broker.publish(entry)
        except BrokerAway:
            self._away_since = self._away_since or monotonic()
            raise
        except Exception as error:  # noqa: BLE001 - one bad tick must not keep the others from being published
            self._refuse(entry, error)
        else:
            self._away_since = None
            self._link.command("LREM", self._key, -1, entry)

    def _refuse(self, entry: bytes, error: Exception) -> None:
        tick = _tick_in(entry)
        schedule, identity, due_ms = tick or ("", "", 0)
        problem = f"{type(error).__name__}: {error}"[:1_000]
        logger.error("moving a tick of schedule %r to the dead letters, could not publish it: %s", schedule, problem)
        refused = (OUTBOX, entry, problem, REFUSED_KEPT, schedule, identity, due_ms)
        self._link.run("schedules/refuse_tick", self._prefix, 0, *refused)


def _tick_in(entry: bytes) -> TickName | None:
    try:
        return tick_of(loads(entry)["task"]["options"]["headers"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


# --- entries ------------------------------------------------------------------------------------------


class Unconnected:
    """Stands in for a kombu producer while nothing is sent, so that the broker need not be reachable."""

    channel = None

    def __init__(self, app: Any) -> None:
        self.connection = app.connection_for_write()  # does not connect


def entries_of(schedule: str, identity: str, send: Callable[[], Any]) -> list[Message]:
    """Return the message that ``send`` would publish as an outbox entry; an empty list if it publishes nothing."""
    run = Settlement()
    with settling(run), collecting():
        send()
    if not run.postings:
        return []
    task, *events = run.postings
    entry = {
        "schedule": schedule,
        "id": identity,
        "task": _written(task),
        "event": json.loads(events[0].body) if events else None,
    }
    return [Message(OUTBOX, 0, 0, identity, dumps(entry).encode())]


def _written(task: Posting) -> dict[str, Any]:
    options = {key: value for key, value in task.options.items() if key not in ADDED_AT_PUBLISHING}
    if options["headers"].get("expires"):
        # The broker would drop an expired message silently; a node reports it to the schedule.
        options.pop("expiration", None)
    options["exchange"] = getattr(options.get("exchange"), "name", options.get("exchange"))
    is_text = isinstance(task.body, str)
    return {
        "body": task.body if is_text else b64encode(task.body).decode(),
        "is_text": is_text,
        "queues": [each.name for each in task.options.get("declare") or () if isinstance(each, Queue)],
        "options": options,
    }


class Broker:
    """Publishes entries of the outbox to the broker of ``app``."""

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

    def publish(self, entry: bytes) -> None:
        """Publish an entry and wait until the broker has confirmed it.

        Raises:
            BrokerAway: The broker cannot be reached, or accepts nothing now.
            RefusedByBroker: The broker refuses this message.
            ValueError, KeyError, TypeError: ``entry`` is malformed.
        """
        content = loads(entry)
        task, event = content["task"], content["event"]
        body = task["body"] if task["is_text"] else b64decode(task["body"])
        options = {**task["options"], "declare": self._declared(task["queues"]), "confirm_timeout": CONFIRM_SECONDS}
        self.reach()
        with self._app.lend_producer() as producer:

            def publish_copy() -> None:
                headers = {**options["headers"], SENT_AT_HEADER: time(), COPY_HEADER: new_id()}
                producer.publish(body, **{**options, "headers": headers})
                if event is not None:
                    self._announce(producer, event)

            _insist(producer, publish_copy)

    def _declared(self, names: list[str]) -> list[Queue]:
        queues = self._app.amqp.queues
        return [queues[name] for name in names if name in queues]

    def _announce(self, producer: Any, event: Mapping[str, Any]) -> None:
        fields = {key: value for key, value in event.items() if key not in OF_THE_DISPATCHER}
        announcer(self._app.amqp).publish(event["type"], fields, producer)


def _connect(producer: Any) -> None:
    """Reconnect if the connection is known to be lost, within a second or two."""
    if not producer.connection.connected:
        producer.connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        producer.revive(producer.connection)


def _insist(producer: Any, publish: Callable[[], None]) -> None:
    """Call ``publish``, and retry once over a new connection if the current one is broken.

    Raises:
        BrokerAway, RefusedByBroker: See ``Broker.publish``.
    """
    connection = producer.connection
    try:
        connection.ensure(producer, publish, max_retries=1, interval_start=0, interval_step=0)()
    except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
        if isinstance(error.__cause__ or error, connection.channel_errors):
            raise RefusedByBroker(error) from error
        raise BrokerAway(error) from error
