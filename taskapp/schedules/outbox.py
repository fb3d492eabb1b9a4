"""Where ticks wait for a broker that is no Redis.

The script that queues ticks works in one Redis. So it queues them there, in the outbox; the leader publishes what lies
there, the oldest first, and takes it out when the broker has confirmed it. A leader that dies in between leaves it to
the next, who publishes it again: the same task by its id, but another copy by its header, so that nodes tell the two
apart.
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
"""How long the broker may take to confirm a message; two attempts fit into the leader's lease."""
REFUSED_KEPT = 1_000
ADDED_AT_PUBLISHING = ("declare", "retry", "retry_policy", "timeout", "confirm_timeout")
OF_THE_DISPATCHER = ("type", "hostname", "pid", "clock", "utcoffset", "timestamp")

logger = logging.getLogger(__name__)


class Outbox:
    """What lies in the outbox, as the leader sees it.

    Args:
        link: The connection to its Redis.
        prefix: The prefix of its keys.
        broker: Publishes the entries.
    """

    def __init__(self, link: Link, prefix: str, broker: Broker) -> None:
        self._link, self._prefix, self._broker = link, prefix, broker
        keys = Keys(prefix)
        self._key = keys.ready(OUTBOX)
        self.wake_key = keys("wake", OUTBOX)
        """A list that gets a token when something is put into the outbox."""
        self.may_hold_some = True
        self._away_since: float | None = None
        """Since when the broker is away, by the monotonic clock."""

    def away_seconds(self) -> float:
        """Return for how long the broker has been away; 0: it took what was published last."""
        return 0.0 if self._away_since is None else monotonic() - self._away_since

    def reach(self) -> None:
        """If the broker was away, look whether it is back.

        Raises:
            BrokerAway: It is not.
        """
        if self._away_since is not None:
            self._broker.reach()
            self._away_since = None

    def forward(self, until: float) -> None:
        """Publish some of what lies here, the oldest first; stop at ``until``, by the monotonic clock.

        Raises:
            BrokerAway: What is not published yet stays.
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
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one tick, the others are published
            self._refuse(entry, error)
        else:
            self._away_since = None
            self._link.command("LREM", self._key, -1, entry)

    def _refuse(self, entry: bytes, error: Exception) -> None:
        tick = _tick_in(entry)
        schedule, identity, due_ms = tick or ("", "", 0)
        problem = f"{type(error).__name__}: {error}"[:1_000]
        logger.error("a tick of schedule %r cannot be published and goes to the dead letters: %s", schedule, problem)
        refused = (OUTBOX, entry, problem, REFUSED_KEPT, schedule, identity, due_ms)
        self._link.run("schedules/refuse_tick", self._prefix, 0, *refused)


def _tick_in(entry: bytes) -> TickName | None:
    try:
        return tick_of(loads(entry)["task"]["options"]["headers"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


# --- entries ------------------------------------------------------------------------------------------


class Unconnected:
    """Stands in for a producer of kombu where nothing goes out yet: the broker may be away."""

    channel = None

    def __init__(self, app: Any) -> None:
        self.connection = app.connection_for_write()  # opens nothing


def entries_of(schedule: str, identity: str, send: Callable[[], Any]) -> list[Message]:
    """Return what ``send`` would publish as an entry of the outbox; none if it publishes nothing."""
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
        # The broker would drop it and tell nobody; a node tells the schedule.
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
    """The broker of ``app``, as the outbox needs it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def reach(self) -> None:
        """Connect if there is no connection.

        Raises:
            BrokerAway: It cannot be done.
        """
        try:
            with self._app.lend_producer() as producer:
                _connect(producer)
        except Exception as error:  # also a login that is refused: no fault of what is to be published
            raise BrokerAway(error) from error

    def publish(self, entry: bytes) -> None:
        """Publish an entry and wait until the broker has confirmed it.

        Raises:
            BrokerAway: The broker cannot be reached, or does not take anything now.
            RefusedByBroker: It does not take this.
            ValueError, KeyError, TypeError: It is no entry.
        """
        said = loads(entry)
        task, event = said["task"], said["event"]
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
    """Connect, if the connection is known to be gone, within a second or two."""
    if not producer.connection.connected:
        producer.connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        producer.revive(producer.connection)


def _insist(producer: Any, publish: Callable[[], None]) -> None:
    """Call ``publish``, and once more over a new connection if the one there was is broken; errors as ``Broker``'s."""
    connection = producer.connection
    try:
        connection.ensure(producer, publish, max_retries=1, interval_start=0, interval_step=0)()
    except (OperationalError, *connection.connection_errors, *connection.channel_errors) as error:
        if isinstance(error.__cause__ or error, connection.channel_errors):
            raise RefusedByBroker(error) from error
        raise BrokerAway(error) from error
