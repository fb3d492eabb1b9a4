"""Celery's remote control, extended in three ways.

Revoked ids are recorded for nodes that start later; others keep them in memory. And a question to all nodes ends with
the last answer: Redis says how many received it. Celery waits a second for more, also at the start of each node, which
asks its neighbours for their clock and what they know as revoked. A node that has the name of another says so then. A
rate limit is set for all nodes at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from celery.app import control
from kombu import pidbox
from kombu.exceptions import OperationalError
from kombu.utils.objects import cached_property
from redis.exceptions import RedisError

from taskapp.client.limits.rate_control import set_rate

logger = logging.getLogger(__name__)

NAMING = frozenset({"task_id", "ids"})
"""Arguments of commands that name tasks."""

# The stubs are incomplete.
_Control: Any = control.Control
_Inspect: Any = control.Inspect
_Mailbox: Any = pidbox.Mailbox


class Mailbox(_Mailbox):
    """Collects answers until everybody who received the question has answered, or until the timeout."""

    connection: Any
    listeners: int | None = None

    def _publish(self, *args: Any, producer: Any = None, channel: Any = None, **options: Any) -> None:
        with self.producer_or_acquire(producer, channel) as used:
            super()._publish(*args, producer=used, channel=channel, **options)
            self.listeners = getattr(used.channel, "listeners", None)

    def _collect(
        self, ticket: str, limit: int | None = None, timeout: float = 1.0,
        callback: Callable[[Any], Any] | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        if self.listeners is None:
            return super()._collect(ticket, limit, timeout, callback, **options)
        connection = self.connection
        self.connection = waiting = _UntilAllAnswered(connection, self.listeners, callback)
        try:
            return super()._collect(ticket, limit, timeout, waiting.on_answer, **options)
        finally:
            self.connection = connection


class _UntilAllAnswered:
    """A connection on which kombu waits for answers: it times out as soon as no more can come."""

    def __init__(self, connection: Any, listeners: int, callback: Callable[[Any], Any] | None) -> None:
        self._connection, self._missing, self._callback = connection, listeners, callback

    def on_answer(self, body: Any) -> None:
        self._missing -= 1
        if self._callback is not None:
            self._callback(body)

    def drain_events(self, timeout: float) -> None:
        if self._missing <= 0:
            raise TimeoutError
        self._connection.drain_events(timeout=timeout)


class Inspect(_Inspect):
    """Celery's questions to nodes; see the module."""

    app: Any

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """Ask all nodes for their clock and revoked tasks, like Celery; ``from_node``, which asks, does not answer."""
        replies = super().hello(from_node, revoked)
        if from_node in (replies or ()):
            logger.warning(
                "another node that runs is named %s: remote control reaches both, and inspect shows one; "
                "give each a name of its own, such as celery -A %s worker -n web1@%%h", from_node, self.app.argument,
                extra={"action": "name_shared"},
            )  # fmt: skip
        return replies


class Control(_Control):
    """Celery's remote control; see the module."""

    app: Any
    Mailbox = Mailbox

    @cached_property
    def inspect(self) -> Any:
        """The class of questions to nodes."""
        return self.app.subclass_with_self(Inspect, reverse="control.inspect")

    def broadcast(
        self, command: str, arguments: Any = None, destination: Any = None, *rest: Any, **options: Any
    ) -> Any:
        """Send a command to nodes, like Celery; record a ``revoke`` that goes to all, set a ``rate_limit``."""
        arguments = {name: texts_of_ids(ids) if name in NAMING else ids for name, ids in (arguments or {}).items()}
        options |= {name: texts_of_ids(options[name]) for name in NAMING & options.keys()}
        if command == "revoke" and destination is None:
            task_ids = {**arguments, **options}.get("task_id") or ()
            # Before it is sent: a node that starts to listen in between reads the record.
            self._note([task_ids] if isinstance(task_ids, str) else [str(one) for one in task_ids])
        if command == "rate_limit":
            given = {**arguments, **options}
            if isinstance(task := given.get("task_name"), str):
                set_rate(self.app, task, given.get("rate_limit"))
        return super().broadcast(command, arguments, destination, *rest, **options)

    def _note(self, task_ids: list[str]) -> None:
        try:
            notes = self.app.open_notes()
            if notes is not None:
                notes.revoked(task_ids)
                notes.close()
        except (RedisError, OSError, OperationalError) as error:
            logger.warning("could not record that %d tasks were revoked: %s", len(task_ids), error)


def texts_of_ids(ids: Any) -> Any:
    """Return one id or several with each ``uuid.UUID`` as text."""
    if isinstance(ids, UUID):
        return str(ids)
    if isinstance(ids, list | tuple | set | frozenset):
        return [str(one) if isinstance(one, UUID) else one for one in ids]
    return ids
