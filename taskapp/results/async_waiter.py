"""Waiting for results in coroutines: one thread per process listens for all of them."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis import ConnectionPool

from taskapp.background import LazyThread
from taskapp.redis.outage import SERVER_GONE, Outage
from taskapp.redis.subscriptions import Listener, Subscriptions

logger = logging.getLogger(__name__)

READ_AT_ONCE = 1_000
LOOK_SECONDS = 1.0
"""How long the thread listens before it checks whether the server is alive."""


class WatchedResult:
    """The results that one coroutine waits for."""

    def __init__(
        self, keys: Iterable[bytes], hear: Callable[[bytes, bytes], None], fail: Callable[[Exception], None]
    ) -> None:
        """Describe the results to wait for; must be called on the event loop.

        Args:
            keys: Keys of the results, which are also the channels they are published on.
            hear: Called on the event loop with a key and its stored value, final or not, possibly twice.
            fail: Called on the event loop if the server was away for too long.
        """
        self.keys = tuple(keys)
        self.hear, self.fail = hear, fail
        self.loop = asyncio.get_running_loop()
        self.listener = Listener(self.keys)


class _News(NamedTuple):
    """A value to pass to a coroutine."""

    watch: WatchedResult
    key: bytes
    payload: bytes


class Awaiter:
    """Subscribes for coroutines of any number of loops, with one connection and one daemon thread.

    ``watch`` and ``forget`` never wait, not even for a lock that another thread holds while it talks to the server.
    """

    def __init__(
        self,
        pool: Callable[[], ConnectionPool],
        read: Callable[[Sequence[bytes]], Sequence[bytes | None]],
        answer_seconds: float,
        patience_seconds: float,
    ) -> None:
        self._subscriptions = Subscriptions(pool, answer_seconds)
        self._read, self._patience_seconds = read, patience_seconds
        self._inbox: deque[tuple[bytes, bytes]] = deque()
        self._orders: deque[tuple[WatchedResult, bool]] = deque()  # and whether it begins
        self._watches: dict[bytes, dict[WatchedResult, None]] = {}
        self._unread: list[WatchedResult] = []
        self._ear, self._waker = socket.socketpair()
        self._ear.settimeout(0)
        self._waker.settimeout(0)
        self._thread = LazyThread(self._run, "results")
        self._outage = Outage("waiting for results", patience_seconds)

    def watch(self, watch: WatchedResult) -> None:
        """Start to pass results to ``watch``: those already stored, and those stored later."""
        watch.listener.inbox = self._inbox
        self._order(watch, begins=True)

    def forget(self, watch: WatchedResult) -> None:
        """Stop passing results to ``watch``."""
        self._order(watch, begins=False)

    def _order(self, watch: WatchedResult, *, begins: bool) -> None:
        self._orders.append((watch, begins))
        self._thread.start()
        with suppress(BlockingIOError):  # the socket is full, so the thread will wake up anyway
            self._waker.send(b"\0")

    # --- on the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self._take_orders()
                if self._watches:
                    self._step()
                else:
                    _wait_readable(self._ear)
            except SERVER_GONE as error:
                self._endure(error)
            except Exception as error:  # the thread must live on for others
                logger.exception("waiting for results failed")
                self._fail(error)

    def _endure(self, error: Exception) -> None:
        self._subscriptions.close()
        try:
            self._outage.pause(error)
        except Exception as lasting:  # noqa: BLE001 - passed on to those who wait
            self._fail(lasting)

    def _fail(self, error: Exception) -> None:
        self._outage = Outage("waiting for results", self._patience_seconds)
        watches = {watch for each in self._watches.values() for watch in each}
        self._watches.clear()
        self._unread.clear()
        self._subscriptions.close()
        for watch in watches:
            _call_soon(watch.loop, watch.fail, error)

    def _take_orders(self) -> None:
        self._hush()
        new: list[WatchedResult] = []
        gone: list[WatchedResult] = []
        while self._orders:
            watch, begins = self._orders.popleft()
            (new if begins else gone).append(watch)
        for watch in new:
            for key in watch.keys:
                self._watches.setdefault(key, {})[watch] = None
        self._unread += new
        if gone:
            self._remove(gone)

    def _hush(self) -> None:
        with suppress(BlockingIOError):
            while self._ear.recv(4_096):
                pass

    def _remove(self, gone: list[WatchedResult]) -> None:
        for watch in gone:
            for key in watch.keys:
                watches = self._watches.get(key, {})
                watches.pop(watch, None)
                if not watches:
                    self._watches.pop(key, None)
        unwanted = set(gone)
        self._unread = [watch for watch in self._unread if watch not in unwanted]
        self._subscriptions.leave(*(watch.listener for watch in gone))

    def _step(self) -> None:
        subscriptions = self._subscriptions
        lost = [watch for watch in self._unread if not subscriptions.has(watch.listener)]
        if lost:
            subscriptions.join(*(watch.listener for watch in lost))
        elif confirmed := [watch for watch in self._unread if watch.listener.marker <= subscriptions.answered]:
            self._read_all(confirmed)
            self._outage.end()
        else:
            self._listen()
        self._hand_out()

    def _listen(self) -> None:
        listener = next(iter(next(iter(self._watches.values())))).listener
        if not self._subscriptions.has(listener):
            # The connection was lost: read results that were published in the meantime.
            self._unread = list(dict.fromkeys(watch for each in self._watches.values() for watch in each))
            return
        self._subscriptions.listen(listener, LOOK_SECONDS, self._ear)

    def _read_all(self, watches: list[WatchedResult]) -> None:
        keys = list(dict.fromkeys(key for watch in watches for key in watch.keys))
        for start in range(0, len(keys), READ_AT_ONCE):
            chunk = keys[start : start + READ_AT_ONCE]
            self._inbox.extend((key, payload) for key, payload in zip(chunk, self._read(chunk), strict=True) if payload)
        done = set(watches)
        self._unread = [watch for watch in self._unread if watch not in done]

    def _hand_out(self) -> None:
        """Pass received values on, with one call per loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_News]] = {}
        while self._inbox:
            key, payload = self._inbox.popleft()
            for watch in self._watches.get(key, ()):
                by_loop.setdefault(watch.loop, []).append(_News(watch, key, payload))
        for loop, news in by_loop.items():
            _call_soon(loop, _deliver, news)


def _wait_readable(ear: socket.socket) -> None:
    poll = select.poll()
    poll.register(ear, select.POLLIN)
    poll.poll()


def _deliver(news: list[_News]) -> None:
    for watch, key, payload in news:
        watch.hear(key, payload)


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], argument: Any) -> None:
    try:
        loop.call_soon_threadsafe(call, argument)
    except RuntimeError:
        logger.debug("an event loop was closed while it waited for results")
