"""kombu's poller, extended to poll the engine's connections and to survive broken ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from queue import Empty
from sys import getrecursionlimit
from time import monotonic
from typing import Any, NamedTuple

from kombu.transport import redis
from redis.exceptions import RedisError

from taskapp import recursion
from taskapp.background import this_process
from taskapp.engine.fetcher import Fetcher
from taskapp.redis.pipe import Pipe
from taskapp.redis.trouble import Trouble
from taskapp.transport.polled import Opener

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.0
"""How long an idle loop may sleep before it checks for broken connections."""


class _Watched(NamedTuple):
    socket: Any
    pipe: Pipe
    read: Callable[[], None]


class Poller(redis.MultiChannelPoller):
    """Drives consumers and nodes next to kombu's own connections, in Celery's loop or without one."""

    _fd_to_chan: dict[int, tuple[Any, str]]  # kombu's: descriptor to channel and command it waits for
    _channels: set[Any]  # kombu's, too

    def __init__(self) -> None:
        super().__init__()
        self._consumers: list[Fetcher] = []
        self._loop: Any = None
        self._inner: Any = None
        self._on_readable: Callable[[int], None] | None = None
        self._timer: Any = None
        self._timer_at = float("inf")
        self._sockets: list[Any] = []
        self._watched: dict[int, _Watched] = {}
        self._process = this_process()
        self._kombu_again_at = 0.0
        self._trouble = Trouble()
        self._opener = Opener()

    def add_consumer(self, consumer: Fetcher) -> None:
        """Drive ``consumer`` from now on."""
        self._consumers.append(consumer)

    def discard_consumer(self, consumer: Fetcher) -> None:
        """Stop driving ``consumer``."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        self._watch()

    # --- with Celery's loop -----------------------------------------------------------------------

    def follow(self, loop: Any, transport: Any) -> None:
        """Let ``loop`` poll the connections and run the timer."""
        self._unwatch_all()
        self._loop, self._on_readable = loop, transport.on_readable
        # A loop inside the loop: the engine's events need no turn of the outer one.
        self._inner = loop if hasattr(loop, "read_on_loop") else None
        if self._inner is not None:
            self._inner.on_free_slot = self._tick

    def on_poll_start(self) -> None:
        """Do what is due, and make sure that the loop wakes up for the next event."""
        for consumer in list(self._consumers):
            consumer.tick()
        self._watch()
        self._set_timer()
        if monotonic() < self._kombu_again_at:
            return
        try:
            if self._loop is not None and not self._opener.are_open(self._kombus_clients()):
                return
            super().on_poll_start()
        except (RedisError, OSError) as error:
            if not self._consumers:
                # Nothing has been asked yet, and a connection that was idle may simply be closed: connect once more.
                super().on_poll_start()
                return
            # Celery would restart its whole consumer if it got the error; remote control can wait.
            self._connection_broke(error)

    def _kombus_clients(self) -> Iterator[Any]:
        for channel in self._channels:
            if channel.active_queues:
                yield channel.client
            if channel.active_fanout_queues:
                yield channel.subclient

    def _set_timer(self) -> None:
        if self._loop is None or not self._consumers:
            return
        now = monotonic()
        at = now + min(consumer.due_seconds() for consumer in self._consumers)
        # An early timer does no harm: it checks, and sets the next one.
        if self._timer is not None and now < self._timer_at < at + 0.0005:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        call_later = self._loop.call_later if self._inner is None else self._inner.later_on_loop
        self._timer = call_later(max(at - now, 0.001), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._tick()

    def _tick(self) -> None:
        for consumer in list(self._consumers):
            consumer.tick()
        # Here, too: the loop asks its timers how long it may sleep before it calls ``on_poll_start``.
        self._set_timer()
        if self._inner is not None:
            self._watch()

    def _watch(self) -> None:
        """Poll the engine's current connections."""
        sockets = [pipe.socket for consumer in self._consumers for pipe in (consumer.node.pipe, consumer.waiting)]
        if sockets == self._sockets:
            return
        self._sockets = sockets
        wanted: dict[int, _Watched] = {}
        for consumer in self._consumers:
            for pipe, read in ((consumer.node.pipe, consumer.node.read), (consumer.waiting, consumer.read_waiting)):
                if (socket := pipe.socket) is not None:
                    wanted[socket.fileno()] = _Watched(socket, pipe, read)
        for fd, watched in list(self._watched.items()):
            # Another connection may have the same number by now.
            if fd not in wanted or wanted[fd].socket is not watched.socket:
                self._unwatch(fd)
                del self._watched[fd]
        for fd in wanted.keys() - self._watched.keys():
            if self._loop is None:
                self.poller.register(fd, self.eventflags)
            elif self._inner is not None:
                self._inner.read_on_loop(fd, partial(self.on_readable, fd))
            else:
                self._loop.add_reader(fd, self._on_readable, fd)
            wanted[fd].pipe.before_closing(self._stop_watching)
        self._watched = wanted

    def _stop_watching(self, socket: Any) -> None:
        """Stop polling ``socket``, which is about to be closed."""
        fd = socket.fileno()
        if fd in self._watched and self._watched[fd].socket is socket:
            self._unwatch(fd)
            del self._watched[fd]
        self._sockets = []

    def _unwatch_all(self) -> None:
        for fd in self._watched:
            self._unwatch(fd)
        self._watched.clear()
        self._sockets = []

    def _unwatch(self, fd: int) -> None:
        if self._inner is not None:
            self._inner.forget_on_loop(fd)
        elif self._loop is not None:
            self._loop.remove(fd)
        else:
            try:
                self.poller.unregister(fd)
            except (KeyError, ValueError, OSError):
                logger.debug("descriptor %d was closed before it was unregistered", fd)

    def before_kombu_closes(self, socket: Any) -> None:
        """Stop polling one of kombu's sockets. kombu would do so after closing it, when its number may be reused.

        A forked child does nothing, because it shares the parent's poller.
        """
        fd = socket.fileno()
        if fd not in self._fd_to_chan or this_process() is not self._process or fd in self._watched:
            return
        if self._loop is not None:
            self._loop.remove(fd)
        else:
            with suppress(KeyError, ValueError, OSError):
                self.poller.unregister(fd)
        self._fd_to_chan.pop(fd, None)

    # --- reading ----------------------------------------------------------------------------------

    def on_readable(self, fileno: int) -> Any:
        """Let the owner of ``fileno`` read."""
        if getrecursionlimit() < recursion.limit:
            recursion.restore()  # or what is read next could not be decoded, and would be buried
        watched = self._watched.get(fileno)
        if watched is not None:
            watched.read()
            # On the inner loop, a freed slot triggers a tick of its own.
            if self._inner is None or not all(consumer.is_quiet for consumer in self._consumers):
                self._tick()
            return True
        return self._guarded(super().on_readable, fileno)

    def handle_event(self, fileno: int, event: int) -> Any:
        """Read a readable descriptor, without a loop."""
        if fileno in self._watched:
            self.on_readable(fileno)
            return None
        return self._guarded(super().handle_event, fileno, event)

    def _guarded(self, read: Callable[..., Any], *args: Any) -> Any:
        """Let kombu read; neither a broken connection nor a malformed command may end a node."""
        try:
            answer = read(*args)
        except Empty:
            raise
        except (RedisError, OSError) as error:
            self._connection_broke(error, args[0])
        except Exception:
            if not self._consumers:
                raise
            logger.exception("a message for remote control cannot be used; it is dropped")
        else:
            # Another connection may still have an answer from before the server went away.
            if monotonic() >= self._kombu_again_at:
                self._trouble.end()
            return answer
        return None

    def _connection_broke(self, error: Exception, fileno: int = -1) -> None:
        # kombu keeps a connection on which reading failed; it would stay readable forever.
        channel, kind = self._fd_to_chan.get(fileno, (None, ""))
        if channel is not None and (client := channel.client if kind == "BRPOP" else channel.subclient).connection:
            client.connection.disconnect()
        if not self._consumers:
            raise error
        self._trouble.away(error)
        self._kombu_again_at = monotonic() + self._trouble.pause_seconds()

    # --- without a loop (gevent, plain consumers) ---------------------------------------------------

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """Wait up to ``timeout`` seconds for events and handle them; raise ``Empty`` if no message was handed out."""
        if not self._consumers:
            return super().get(callback, timeout)
        self._in_protected_read = True
        try:
            self.maybe_refresh_binding_expiry()  # type: ignore[attr-defined]  # missing in the stubs
            self.on_poll_start()
            due = min(consumer.due_seconds() for consumer in self._consumers)
            wait = min(due, PATIENCE_SECONDS if timeout is None else timeout)
            before = sum(consumer.handed_out for consumer in self._consumers)
            for fileno, event in self.poller.poll(wait) or ():
                with suppress(Empty):
                    self.handle_event(fileno, event)
            for consumer in self._consumers:
                consumer.tick()
            if sum(consumer.handed_out for consumer in self._consumers) == before:
                raise Empty
        finally:
            self._in_protected_read = False
            while self.after_read:
                self.after_read.pop()()

    def maybe_restore_messages(self) -> None:
        """Do nothing: the engine reaps the messages of dead nodes."""
