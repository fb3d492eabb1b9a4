"""One connection that receives results as they are stored, shared by all waiting threads."""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import ConnectionPool

from taskapp.background import in_child
from taskapp.redis.internals import socket_of
from taskapp.redis.outage import SERVER_GONE

QUIET_SECONDS = 5.0
"""Silence after which to check whether the connection is alive."""


class Listener:
    """One waiting call: its channels, and the messages received on them."""

    def __init__(self, channels: Iterable[bytes]) -> None:
        self.channels = frozenset(channels)
        self.inbox: deque[tuple[bytes, bytes]] = deque()
        self.connection_number = -1
        """Number of the connection it is subscribed on; an older one is lost."""
        self.marker = 0
        self.is_confirmed = False
        """Whether the server has confirmed the subscription."""


class Subscriptions:
    """Subscribes for many listeners on one connection; one of the waiting threads reads for all of them.

    The lock is held to send and to read available data, never to wait. ``leave`` never waits for the lock,
    because the garbage collector may call it at any time.
    """

    def __init__(self, pool: Callable[[], ConnectionPool], answer_seconds: float) -> None:
        self._pool, self._answer_seconds = pool, answer_seconds
        self.start_over()
        in_child(Subscriptions.start_over, owner=self)

    def start_over(self) -> None:
        """Forget everything, as a forked child must."""
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._connection: Any = None
        self._connection_number = 0
        self._listeners: dict[bytes, list[Listener]] = {}
        self._leaving: deque[Listener] = deque()
        self._is_read = False
        self._marker = self._answered = 0
        self._asked_at: float | None = None
        self._heard_at = 0.0

    def has(self, listener: Listener) -> bool:
        """Return whether ``listener`` is subscribed on a connection that works, as far as is known."""
        return listener.connection_number == self._connection_number

    @property
    def answered(self) -> int:
        """The highest ``marker`` the server has answered; listeners with this marker or a lower one are subscribed."""
        return self._answered

    def join(self, *listeners: Listener) -> None:
        """Subscribe to the channels of ``listeners`` that are not subscribed yet, without awaiting the answer.

        Raises:
            redis.ConnectionError, redis.TimeoutError: The server is away.
        """
        with self._locked():
            self._connect()
            wanted = dict.fromkeys(channel for listener in listeners for channel in listener.channels)
            new = [channel for channel in wanted if channel not in self._listeners]
            self._marker += 1
            self._send(*([("SUBSCRIBE", *new)] if new else []), ("PING", self._marker))
            for listener in listeners:
                for channel in listener.channels:
                    self._listeners.setdefault(channel, []).append(listener)
                listener.marker, listener.is_confirmed = self._marker, False
                listener.connection_number = self._connection_number

    def leave(self, *listeners: Listener) -> None:
        """Unsubscribe from channels without other listeners, now or when the lock is free."""
        self._leaving.extend(listeners)
        self._unsubscribe()

    def listen(self, listener: Listener, seconds: float, waker: Any = None) -> None:
        """Wait up to ``seconds`` for a message to ``listener``, its confirmation, or the loss of the connection.

        May return earlier without any of these; also when ``waker``, a socket, becomes readable, provided that no
        other thread is reading.
        """
        with self._locked():
            if self._answered >= listener.marker:
                has_news, listener.is_confirmed = not listener.is_confirmed, True
            else:
                has_news = False
            if has_news or listener.inbox or not self.has(listener):
                return
            if self._is_read:
                self._news.wait(seconds)
                return
            self._is_read, number, socket = True, self._connection_number, socket_of(self._connection)
        is_readable = False
        try:
            is_readable = _wait_readable(socket, seconds, waker)
        finally:
            with self._locked():
                self._is_read = False
                self._news.notify_all()
                if number == self._connection_number:
                    self._read(is_readable=is_readable)

    def close(self) -> None:
        """Close the connection; listeners find it lost."""
        with self._locked():
            self._lose()

    # --- under the lock -----------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        finally:
            self._unsubscribe()

    def _connect(self) -> None:
        if self._connection is None:
            self._connection = self._pool().get_connection()
        elif not self._listeners:
            # Nothing has been read since the last wait: answers to UNSUBSCRIBE may be there, or the end of the stream.
            try:
                while self._connection.can_read():
                    self._take(self._connection.read_response(disable_decoding=True))
            except SERVER_GONE:
                self._lose()
        if not self._connection.is_connected:
            self._connection.connect()
        self._heard_at = self._heard_at or time.monotonic()

    def _send(self, *commands: tuple[Any, ...]) -> None:
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
        except BaseException:
            self._lose()
            raise
        if commands[-1][0] == "PING":
            self._asked_at = self._asked_at or time.monotonic()

    def _read(self, *, is_readable: bool) -> None:
        try:
            if is_readable:
                self._take_all()
            else:
                self._check_alive()
        except SERVER_GONE:
            self._lose()
        except BaseException:
            self._lose()
            raise

    def _take_all(self) -> None:
        # Read everything: poll does not report what is left in the parser's buffer.
        self._take(self._connection.read_response(disable_decoding=True))
        while self._connection.can_read():
            self._take(self._connection.read_response(disable_decoding=True))
        self._heard_at, self._asked_at = time.monotonic(), None

    def _take(self, answer: Any) -> None:
        if isinstance(answer, bytes):  # to a PING while nothing is subscribed
            answer = [b"pong", answer]
        kind, first, *rest = answer
        if kind == b"message":
            for listener in self._listeners.get(first, ()):
                listener.inbox.append((first, rest[0]))
        elif kind == b"pong":
            self._answered = int(first)

    def _check_alive(self) -> None:
        now = time.monotonic()
        if self._asked_at is not None:
            if now - self._asked_at > self._answer_seconds:
                raise ConnectionError(f"no answer within {self._answer_seconds} s")
        elif self._listeners and now - self._heard_at > QUIET_SECONDS:
            self._marker += 1
            self._send(("PING", self._marker))

    def _lose(self) -> None:
        self._connection_number += 1
        self._listeners.clear()
        self._asked_at, self._heard_at = None, 0.0
        if self._connection is not None:
            self._connection.disconnect()

    def _unsubscribe(self) -> None:
        # A thread that holds the lock checks again after releasing it.
        while self._leaving and self._lock.acquire(blocking=False):
            try:
                unwanted = self._remove_leaving()
                if unwanted:
                    self._send(("UNSUBSCRIBE", *unwanted))
            except SERVER_GONE:
                pass  # lost, and with it the subscriptions
            finally:
                self._lock.release()

    def _remove_leaving(self) -> list[bytes]:
        unwanted = []
        while self._leaving:
            listener = self._leaving.popleft()
            if not self.has(listener):
                continue
            listener.connection_number = -1
            for channel in listener.channels:
                listeners = self._listeners[channel]
                listeners.remove(listener)
                if not listeners:
                    del self._listeners[channel]
                    unwanted.append(channel)
        return unwanted


def _wait_readable(socket: Any, seconds: float, waker: Any = None) -> bool:
    try:
        # Looked up each time, so that gevent's patch applies even if it is installed late.
        poll = select.poll()
        poll.register(socket, select.POLLIN)
        if waker is not None:
            poll.register(waker, select.POLLIN)
        number = socket.fileno()
        return any(ready == number for ready, _ in poll.poll(seconds * 1_000))
    except (OSError, ValueError):
        return True  # closed in the meantime: reading will fail
