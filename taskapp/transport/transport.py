"""The kombu transports of our app, behind ``redis://``, ``rediss://``, ``redis+socket://``, ``sentinel://``, ``amqp://``.

Only our app's connections know them; other Celery apps in the process keep kombu's own.
"""

from __future__ import annotations

from typing import Any

import kombu
from kombu import connection
from kombu.transport import redis
from kombu.utils.collections import HashedSeq

from taskapp.celery_internals import connection_options
from taskapp.transport import rabbitmq
from taskapp.transport.channel import Channel, SentinelChannel
from taskapp.transport.poller import Poller

# Mixed into classes of kombu; a common base there would be one too many.
_Mixin: Any = object
_RedisTransport: Any = redis.Transport
_SentinelTransport: Any = redis.SentinelTransport


class _EngineTransport(_Mixin):
    """What both transports share: the poller that also watches nodes and consumers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Let Celery's event loop drive the poller."""
        super().register_with_event_loop(connection, loop)
        self.cycle.follow(loop, self)


class Transport(_EngineTransport, _RedisTransport):
    """One Redis."""

    Channel = Channel


class SentinelTransport(_EngineTransport, _SentinelTransport):
    """A Redis behind Sentinel."""

    Channel = SentinelChannel


TRANSPORTS = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
OF_RABBITMQ = {"amqp": rabbitmq.AmqpTransport, "pyamqp": rabbitmq.AmqpTransport, "amqps": rabbitmq.SSLTransport}


def is_over_redis(url: str | None) -> bool:
    """Return whether ``url`` leads to the engine."""
    return url is not None and url.partition("://")[0].partition("+")[0] in TRANSPORTS


def is_over_rabbitmq(url: str | None) -> bool:
    """Return whether ``url`` leads to RabbitMQ."""
    return url is not None and url.partition("://")[0] in OF_RABBITMQ


class _Ours(_Mixin):
    """A connection whose URLs mean our transports; they are shown as they were typed."""

    def get_transport_cls(self) -> Any:
        """Return our transport for Redis and RabbitMQ, kombu's for any other."""
        name = self.transport_cls
        return TRANSPORTS.get(name) or OF_RABBITMQ.get(name) or super().get_transport_cls()

    def __eqhash__(self) -> Any:
        # kombu's pools are the process's: another app with this URL must not be lent our connections.
        return HashedSeq("taskapp", *super().__eqhash__())


class PooledConnection(_Ours, connection.PooledConnection):
    """One of a pool."""


class ConnectionPool(connection.ConnectionPool):
    """A pool of our connections."""

    def new(self) -> PooledConnection:
        """Make one more."""
        return PooledConnection(self, **connection_options(self.connection))


class Connection(_Ours, kombu.Connection):
    """What our app connects with. Other Celery apps in the process keep kombu's."""

    def Pool(self, limit: int | None = None, **kwargs: Any) -> ConnectionPool:  # noqa: N802 - kombu's name
        """Return a pool of such connections."""
        return ConnectionPool(self, limit, **kwargs)
