"""kombu's own connections to Redis, made fit for a loop: read without waiting, and watched no more before they close.

kombu reads whole answers, and waits in the loop for an answer of which only the beginning has come. And it takes a
connection off its poller after it was closed, when the number may be another connection's: if a forked child
still holds the old one, the poller announces that one under the number of the new one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty
from typing import Any

from redis.exceptions import RedisError

from taskapp.redis.internals import has_answer, socket_of

# Mixed into channels of kombu, which the stubs do not know well.
_Mixin: Any = object


def polled(connection_class: type, before_closing: Callable[[Any], None]) -> type:
    """Return a kind of ``connection_class`` that a loop can watch.

    Args:
        connection_class: One of redis-py's.
        before_closing: Called with the socket of a connection before that is closed.
    """
    base: Any = connection_class

    class Polled(base):
        def disconnect(self, *args: Any, **options: Any) -> None:
            if (socket := socket_of(self)) is not None:
                before_closing(socket)
            super().disconnect(*args, **options)

    return Polled


class Opener:
    """Opens connections of kombu's again, beside the loop that watches them: a server may take seconds to greet."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def are_open(self, clients: Iterable[Any]) -> bool:
        """Return whether none of redis-py's ``clients`` has lost its connection; begin to connect those that have.

        One that was never connected is kombu's to connect: a node that is ready listens.

        Raises:
            RedisError, OSError: The last attempt failed. The next call begins another.
        """
        if self._thread is not None:
            if self._thread.is_alive():
                return False
            self._thread, error, self._error = None, self._error, None
            if error is not None:
                raise error
        lost = [one.connection for one in clients if one.connection is not None and socket_of(one.connection) is None]
        if lost:
            self._thread = threading.Thread(target=self._open, args=(lost,), name="taskapp-open", daemon=True)
            self._thread.start()
        return not lost

    def _open(self, connections: Iterable[Any]) -> None:
        try:
            for connection in connections:
                connection.connect()
        except (RedisError, OSError) as error:
            self._error = error


class PolledChannel(_Mixin):
    """Makes a Redis channel of kombu read only what has come, from connections that leave their poller in time."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        params: dict[str, Any] = super()._connparams(asynchronous)
        if asynchronous:
            params["connection_class"] = polled(params["connection_class"], self._before_closing)
        return params

    def _before_closing(self, socket: Any) -> None:
        if self.connection is not None and self.connection.cycle is not None:
            self.connection.cycle.before_kombu_closes(socket)

    def _receive(self) -> bool:
        """Deliver the messages that have come whole."""
        client, delivered = self.subclient, False
        while client.connection is not None and has_answer(client.connection):
            with suppress(Empty):
                delivered = bool(self._receive_one(client)) or delivered
        return delivered

    def _brpop_read(self, **options: Any) -> Any:
        """Deliver the message that has come, if it has come whole."""
        # What is broken, kombu finds broken, too.
        with suppress(RedisError):
            if not has_answer(self.client.connection):
                raise Empty
        return super()._brpop_read(**options)
