"""kombu's side of the engine in memory: connections, and the channel on which requests settle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from kombu import connection
from kombu.pools import ProducerPool
from kombu.transport import virtual

from taskapp.celery_internals import connection_options
from taskapp.engine.claims import Claimed
from taskapp.testing.engine import MemoryEngine, MemoryRuntime
from taskapp.transport.channel import EngineChannel
from taskapp.transport.transport import Connection, ConnectionPool

URL = "redis://taskapp-testing.invalid:6379/0"
"""The URL of broker and results in a test: a Redis, so that the same code runs; a host that cannot exist, so that what
passes the kit by fails instead of reaching a real server."""
POOL_SIZE = 100

_VirtualChannel: Any = virtual.Channel  # the package has no types
_VirtualTransport: Any = virtual.Transport
_PooledConnection: Any = connection.PooledConnection

OnCommand = Callable[[str, dict[str, Any]], None]
"""Called with the name and the arguments of a remote-control command."""


class MemoryChannel(EngineChannel, _VirtualChannel):
    """A channel to the engine in memory."""

    supports_fanout = True
    do_restore = False
    runtime: MemoryRuntime
    engine: MemoryEngine
    on_command: Callable[..., None]

    @property
    def process(self) -> MemoryRuntime:
        """The runtime of the test."""
        return self.runtime

    def _rest(self) -> None:
        """Do nothing: there are no connections."""

    def event_topic(self, exchange: str, routing_key: str) -> str:
        """Return a name: nobody listens to events."""
        return f"{exchange}.{routing_key}"

    def message(self, claimed: Claimed) -> Any:
        """Return kombu's message; ``None`` if it is unreadable, and became a dead letter."""
        return self._message(claimed)

    def ended(self, tag: str) -> None:
        """Do nothing: there are no slots."""

    def give_back(self, tag: str, kind: str = "unstarted", delay_seconds: float = 0.0, pauses: Any = ()) -> None:
        """Return a message to its queue."""
        self.process.node.give_back([tag], kind, delay_seconds, pauses)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str, **_: Any) -> None:  # noqa: ARG002
        """Carry out a remote-control command, which no node answers; queue what goes to all nodes for this one."""
        self.listeners = 0
        if "pidbox" in exchange:
            command = json.loads(message["body"])
            self.on_command(command.get("method", ""), command.get("arguments") or {})
            return
        for _, _, queue in self.get_table(exchange):  # a ``Broadcast`` queue
            self._put(queue, message)

    def publish_event(self, exchange: str, routing_key: str, body: bytes) -> None:
        """Drop an event."""

    def declare(self, queues: Iterable[Any]) -> None:
        """Declare the queues that a node of the app would."""
        for queue in queues:
            queue.bind(self).declare()

    def _queue_bind(self, *_: Any) -> None:
        """Do nothing: ``state`` has the bindings."""

    def _has_queue(self, queue: str, **_: Any) -> bool:  # noqa: ARG002 - all exist
        return True

    def _new_queue(self, queue: str, **_: Any) -> None:
        """Do nothing: a queue exists once it has a message."""

    def _size(self, queue: str) -> int:
        return sum(each.queue == queue for each in self.engine.waiting())

    def _purge(self, queue: str) -> int:
        return self.engine.purge(queue)

    def _delete(self, queue: str, *_: Any, **__: Any) -> None:
        self.engine.purge(queue)


class MemoryTransport(_VirtualTransport):
    """A transport to the engine in memory."""

    driver_type, driver_name = "redis", "memory"
    Channel = MemoryChannel
    shared: virtual.BrokerState

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self.state = self.shared


class MemoryBroker:
    """Makes connections to one engine in memory."""

    def __init__(self, engine: MemoryEngine, runtime: MemoryRuntime, on_command: OnCommand) -> None:
        parts = {"runtime": runtime, "engine": engine, "on_command": staticmethod(on_command)}
        channel = type("Channel", (MemoryChannel,), parts)
        transport = type("Transport", (MemoryTransport,), {"Channel": channel, "shared": virtual.BrokerState()})

        class OfThisTest:
            def get_transport_cls(self) -> Any:
                return transport

        class Pooled(OfThisTest, _PooledConnection):
            """A connection of the pool."""

        class MemoryPool(ConnectionPool):
            def new(self) -> Any:
                return Pooled(self, **connection_options(self.connection))

        class ToMemory(OfThisTest, Connection):
            def Pool(self, limit: int | None = None, **options: Any) -> Any:  # noqa: N802 - kombu's name
                return MemoryPool(self, limit, **options)

        self.connection_class = ToMemory

    @cached_property
    def pool(self) -> Any:
        """Connections."""
        return self.connection_class(URL).Pool(POOL_SIZE)

    @cached_property
    def producers(self) -> Any:
        """The producers of kombu."""
        return ProducerPool(self.pool, limit=POOL_SIZE)

    @cached_property
    def channel(self) -> MemoryChannel:
        """The channel of the node."""
        connection: Any = self.connection_class(URL)
        channel: MemoryChannel = connection.channel()
        return channel
