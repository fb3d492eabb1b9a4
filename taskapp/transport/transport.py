"""taskapp's kombu transports for ``redis://``, ``rediss://``, ``redis+socket://``, ``sentinel://`` and ``amqp://``.

Only connections of a taskapp app use them; other Celery apps in the process keep kombu's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu
from kombu import connection
from kombu.transport import redis
from kombu.utils.collections import HashedSeq

from taskapp.celery_internals import connection_options
from taskapp.engine.runtime import loop_turned
from taskapp.transport import rabbitmq
from taskapp.transport.channel import Channel, SentinelChannel
from taskapp.transport.poller import Poller

# Mixed into kombu's classes, which have no useful common base.
_Mixin: Any = object
_RedisTransport: Any = redis.Transport
_SentinelTransport: Any = redis.SentinelTransport


class _EngineTransport(_Mixin):
    """Common part of both transports: the poller that also drives nodes and consumers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()
        self.queue_of_list: dict[str, str] = {}
        """Names of lists, without the prefix, for which consumers without acknowledgement wait."""

    def _deliver(self, message: dict[str, Any], queue: str) -> None:
        super()._deliver(message, self.queue_of_list.get(queue, queue))

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Let Celery's event loop drive the poller."""
        super().register_with_event_loop(connection, loop)
        self.cycle.follow(loop, self)


class Transport(_EngineTransport, _RedisTransport):
    """Transport to one Redis."""

    Channel = Channel


class SentinelTransport(_EngineTransport, _SentinelTransport):
    """Transport to a Redis behind Sentinel."""

    Channel = SentinelChannel


TRANSPORTS = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
OF_RABBITMQ = {"amqp": rabbitmq.AmqpTransport, "pyamqp": rabbitmq.AmqpTransport, "amqps": rabbitmq.SSLTransport}

AGAIN = {"interval_start": 1, "interval_step": 0, "interval_max": 1}
"""Seconds between two attempts to connect to Redis. kombu waits longer each time, up to 30 s."""


def is_over_redis(url: str | None) -> bool:
    """Return whether ``url`` is that of Redis, so that the engine delivers."""
    return url is not None and url.partition("://")[0].partition("+")[0] in TRANSPORTS


def is_over_rabbitmq(url: str | None) -> bool:
    """Return whether ``url`` is that of RabbitMQ."""
    return url is not None and url.partition("://")[0] in OF_RABBITMQ


class _Ours(_Mixin):
    """A connection that uses taskapp's transports; URLs are shown as they were typed."""

    def get_transport_cls(self) -> Any:
        """Return taskapp's transport for Redis and RabbitMQ, kombu's for any other broker."""
        name = self.transport_cls
        return TRANSPORTS.get(name) or OF_RABBITMQ.get(name) or super().get_transport_cls()

    def __eqhash__(self) -> Any:
        # kombu's pools are global: another app with the same URL must not get these connections.
        return HashedSeq("taskapp", *super().__eqhash__())


class PooledConnection(_Ours, connection.PooledConnection):
    """A connection of a pool."""


class ConnectionPool(connection.ConnectionPool):
    """A pool of connections with taskapp's transports."""

    def new(self) -> PooledConnection:
        """Return a new connection for this pool."""
        return PooledConnection(self, **connection_options(self.connection))


class Connection(_Ours, kombu.Connection):
    """The connection class of a taskapp app. Other Celery apps in the process keep kombu's."""

    def ensure_connection(self, *args: Any, callback: Callable[[], Any] | None = None, **options: Any) -> Any:
        """Connect, like kombu; to Redis, which a reconnecting node costs nothing, try again each second.

        A node that is trying keeps its lease, as kombu calls ``callback`` each second; one that hangs loses it.
        """
        if self.transport_cls not in TRANSPORTS or len(args) > 2:  # with intervals of the caller's own
            return super().ensure_connection(*args, **{**options, "callback": callback})

        def each_second() -> None:
            loop_turned()
            if callback is not None:
                callback()

        loop_turned()
        return super().ensure_connection(*args, **{**AGAIN, **options, "callback": each_second})

    def Pool(self, limit: int | None = None, **kwargs: Any) -> ConnectionPool:  # noqa: N802 - kombu's name
        """Return a pool of up to ``limit`` such connections; ``None``: no limit."""
        return ConnectionPool(self, limit, **kwargs)
