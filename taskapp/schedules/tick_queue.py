"""The tick queue, where ticks wait for a broker other than Redis.

The script that queues ticks works in one Redis. So it queues them there, in the tick queue. The leader publishes its
entries, the oldest first, and removes each once the broker has confirmed it. If a leader dies in between, the next one
publishes the entry again: with the same task id but another copy id in a header, so that nodes can distinguish the two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from kombu.utils.json import dumps, loads

from taskapp.client.protocol import new_id
from taskapp.client.written_messages import Publisher, Recorder, recorded
from taskapp.engine.producer import Message
from taskapp.engine.settlement import COPY_HEADER, TickName, tick_of
from taskapp.errors.publishing import BrokerAway
from taskapp.queues import TICKS
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link

PUBLISHED_AT_ONCE = 100
REFUSED_KEPT = 1_000

logger = logging.getLogger(__name__)


class TickQueue:
    """The leader's access to the tick queue.

    Args:
        link: Connection to the Redis of the schedules.
        prefix: Prefix of the keys.
        publisher: Publishes the entries.
    """

    def __init__(self, link: Link, prefix: str, publisher: Publisher) -> None:
        self._link, self._prefix, self._publisher = link, prefix, publisher
        keys = Keys(prefix)
        self._key = keys.ready(TICKS)
        self.wake_key = keys("wake", TICKS)
        """Key of a list that gets a token whenever an entry is added to the tick queue."""
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
            self._publisher.reach()
            self._away_since = None

    def forward(self, until: float) -> None:
        """Publish up to ``PUBLISHED_AT_ONCE`` entries, the oldest first; stop at ``until`` (monotonic).

        Raises:
            BrokerAway: The broker is unreachable; unpublished entries stay.
        """
        # A leader with an older version queued its ticks in kombu's list.
        self._link.run("adopt", self._prefix, 0, PUBLISHED_AT_ONCE, 0, TICKS)
        found = self._link.command("LRANGE", self._key, -PUBLISHED_AT_ONCE, -1)
        for entry in reversed(found):
            if monotonic() >= until:
                return
            self._forward(entry)
        self.may_hold_some = len(found) == PUBLISHED_AT_ONCE

    def _forward(self, entry: bytes) -> None:
        try:
            self._publish(entry)
        except BrokerAway:
            self._away_since = self._away_since or monotonic()
            raise
        except Exception as error:  # noqa: BLE001 - one bad tick must not keep the others from being published
            self._refuse(entry, error)
        else:
            self._away_since = None
            self._link.command("LREM", self._key, -1, entry)

    def _publish(self, entry: bytes) -> None:
        content = loads(entry)
        self._publisher.publish(content["task"], content["event"], lambda: {COPY_HEADER: new_id()})

    def _refuse(self, entry: bytes, error: Exception) -> None:
        tick = _tick_in(entry)
        schedule, identity, due_ms = tick or ("", "", 0)
        problem = f"{type(error).__name__}: {error}"[:1_000]
        logger.error("moving a tick of schedule %r to the dead letters, could not publish it: %s", schedule, problem)
        refused = (TICKS, entry, problem, REFUSED_KEPT, schedule, identity, due_ms)
        self._link.run("schedules/refuse_tick", self._prefix, 0, *refused)


def _tick_in(entry: bytes) -> TickName | None:
    try:
        return tick_of(loads(entry)["task"]["options"]["headers"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def entries_of(app: Any, schedule: str, identity: str, send: Callable[[Recorder], Any]) -> list[Message]:
    """Return the message that ``send`` publishes as an entry of the tick queue; an empty list if it publishes nothing.

    ``send`` gets the producer to use. The broker need not be reachable.
    """
    _, recorder = recorded(app, send)
    if not recorder.tasks:
        return []
    entry = {
        "schedule": schedule,
        "id": identity,
        "task": recorder.tasks[0],
        "event": recorder.events[0] if recorder.events else None,
    }
    return [Message(TICKS, 0, 0, identity, dumps(entry).encode())]
