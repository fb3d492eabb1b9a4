"""Access to an app's data in Redis: dead letters, delayed messages, schedules, notes, finished tasks.

If the broker is not Redis, the data that does not need it is in the result backend, if that is Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.connection import Connection

from taskapp.engine.completions import FinishedTasks
from taskapp.engine.dead_letters import DeadLetters
from taskapp.engine.delayed import DelayedMessages
from taskapp.engine.task_notes import Notes
from taskapp.errors import NoEngine
from taskapp.errors.history import NoPlaceForEnds
from taskapp.errors.schedules import NoSchedules
from taskapp.redis.link import Link
from taskapp.transport.transport import is_over_redis

if TYPE_CHECKING:
    from taskapp.results.backend import Results
    from taskapp.schedules.store import Schedules

Server = tuple[Callable[[], Connection], str]
"""Opens connections to a Redis; and the prefix of its keys."""


class Engine(NamedTuple):
    """The inspectable parts of the delivery engine."""

    dead_letters: DeadLetters
    delayed: DelayedMessages
    link: Link
    """Connection to its server, for ``engine.snapshot`` and ``engine.counters``."""
    prefix: str


class Resources:
    """Gives access to an app's data in Redis.

    All methods raise ``BrokerNotFound``, ``OSError``, ``kombu.exceptions.OperationalError`` or ``redis.RedisError``
    if the server cannot be reached.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """Lend the dead letters and the delayed messages, over the app's own broker.

        Raises:
            NoEngine: The broker is not Redis.
        """
        with self._channel() as channel:
            link, prefix = channel.process.producer.link, channel.global_keyprefix
            notes = Notes(link, prefix, self._notes_seconds)
            delayed = DelayedMessages(link, prefix, self._app.queue_names(), notes)
            yield Engine(DeadLetters(link, prefix), delayed, link, prefix)

    @contextmanager
    def schedules(self) -> Iterator[Schedules]:
        """Lend the schedules, from the broker or else from the result backend.

        Raises:
            NoSchedules: Neither is Redis.
        """
        # Imported here, because most callers want the engine alone.
        from taskapp.schedules.messages import messages_of
        from taskapp.schedules.store import Schedules

        make = partial(messages_of, self._app)
        if self._is_over_redis():
            with self._channel() as channel:
                yield self._named(Schedules(channel.process.producer.link, channel.global_keyprefix, make))
        elif (server := self._server()) is not None:
            with closing(Link(server[0])) as link:
                yield self._named(Schedules(link, server[1], make))
        else:
            raise NoSchedules(self._app.connection_for_write().as_uri())

    def _named(self, schedules: Schedules) -> Schedules:
        schedules.command = self._app.command
        return schedules

    @contextmanager
    def finished_tasks(self) -> Iterator[FinishedTasks]:
        """Lend the stream of finished tasks, from the broker or else from the result backend, over its own connection.

        Raises:
            NoPlaceForEnds: Neither is Redis.
        """
        server = self._server()
        if server is None:
            raise NoPlaceForEnds(self._app.connection_for_write().as_uri())
        with closing(Link(server[0])) as link:
            yield FinishedTasks(link, server[1])

    def open_notes(self) -> Notes | None:
        """Return the notes on tasks, over their own connection; ``None``: neither broker nor results use Redis."""
        server = self._server()
        return Notes(Link(server[0]), server[1], self._notes_seconds) if server is not None else None

    @property
    def keeps_notes(self) -> bool:
        """Whether the broker or the result backend is Redis, which stores the notes on tasks."""
        return self._is_over_redis() or self._results() is not None

    @property
    def _notes_seconds(self) -> int:
        expires: Any = self._app.conf.result_expires or 0
        return int(expires.total_seconds() if isinstance(expires, timedelta) else expires)

    def _server(self) -> Server | None:
        """Return the Redis for data other than messages: the broker, else the result backend; ``None``: neither is."""
        if self._is_over_redis():
            with self._channel() as channel:
                return channel.process.connect, channel.global_keyprefix
        results = self._results()
        return results.server() if results is not None else None

    def _results(self) -> Results | None:
        """Return the result backend if it is Redis; only asked where the broker is not."""
        from taskapp.results.backend import Results

        return self._app.backend if isinstance(self._app.backend, Results) else None

    def _is_over_redis(self) -> bool:
        self._app.find_broker()
        return is_over_redis(self._app.conf.broker_url)

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        with self._app.connection_for_write() as connection:
            if not is_over_redis(self._app.conf.broker_url):
                raise NoEngine(connection.as_uri())
            yield connection.default_channel
