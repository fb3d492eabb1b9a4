"""Makes kombu's own connections to Redis safe for a loop: reads never wait, and polling stops before they close.

kombu reads complete answers, and so blocks the loop if only the beginning of one has arrived. And it removes a
connection from its poller after closing it, when another connection may have its descriptor: if a forked child
still holds the old one, the poller reports events of the old one under the number of the new one.

And it waits for its own lists alone. Consumers without acknowledgement need those of the engine, too, to which
taskapp pushes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from taskapp.background import start_thread
from taskapp.redis.internals import has_answer, socket_of
from taskapp.redis.keys import Keys

# Mixed into kombu's channels, which the stubs do not describe well.
_Mixin: Any = object


def polled(connection_class: type, before_closing: Callable[[Any], None]) -> type:
    """Return a subclass of ``connection_class`` that a loop can poll.

    Args:
        connection_class: A connection class of redis-py.
        before_closing: Called with the socket of a connection before it is closed.
    """
    base: Any = connection_class

    class Polled(base):
        def disconnect(self, *args: Any, **options: Any) -> None:
            if (socket := socket_of(self)) is not None:
                before_closing(socket)
            super().disconnect(*args, **options)

    return Polled


class Opener:
    """Reopens kombu's connections outside the loop that polls them, because connecting may take seconds."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def are_open(self, clients: Iterable[Any]) -> bool:
        """Return whether no client has lost its connection; start to reconnect those that have.

        Args:
            clients: Clients of redis-py. kombu itself makes the first connection, so that a node that is ready listens.

        Raises:
            RedisError, OSError: The last attempt failed. The next call starts another.
        """
        if self._thread is not None:
            if self._thread.is_alive():
                return False
            self._thread, error, self._error = None, self._error, None
            if error is not None:
                raise error
        lost = [one.connection for one in clients if one.connection is not None and socket_of(one.connection) is None]
        if lost:
            self._thread = start_thread(self._open, lost, name="open")
        return not lost

    def _open(self, connections: Iterable[Any]) -> None:
        try:
            for connection in connections:
                connection.connect()
        except (RedisError, OSError) as error:
            self._error = error


class PolledChannel(_Mixin):
    """Makes kombu's Redis channel read only complete answers, from connections that leave the poller in time."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        params: dict[str, Any] = super()._connparams(asynchronous)
        if asynchronous:
            params["connection_class"] = polled(params["connection_class"], self._before_closing)
        return params

    def _before_closing(self, socket: Any) -> None:
        if self.connection is not None and self.connection.cycle is not None:
            self.connection.cycle.before_kombu_closes(socket)

    def _receive(self) -> bool:
        """Deliver messages that have arrived completely."""
        client, delivered = self.subclient, False
        while client.connection is not None and has_answer(client.connection):
            with suppress(Empty):
                delivered = bool(self._receive_one(client)) or delivered
        return delivered

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Wait for messages to consumers without acknowledgement, in kombu's lists and in those of the engine."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        prefix = self.global_keyprefix
        lists = {name: queue for queue in queues for name in Keys(prefix).waiting(queue)}
        # kombu's client removes the prefix from the answer.
        self.connection.queue_of_list.update((name.removeprefix(prefix), queue) for name, queue in lists.items())
        self._in_poll, self._brpop_sent_at = self.client.connection, monotonic()
        seconds = self.brpop_timeout if timeout is None else timeout
        self.client.connection.send_command("BRPOP", *lists, seconds or 0)

    def _brpop_read(self, **options: Any) -> Any:
        """Deliver a message if it has arrived completely."""
        # kombu itself notices a broken connection.
        with suppress(RedisError):
            if not has_answer(self.client.connection):
                raise Empty
        return super()._brpop_read(**options)
