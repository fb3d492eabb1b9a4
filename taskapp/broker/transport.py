"""The kombu transports of our app: Redis, with queues and priorities taken in strict order."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

import kombu
from kombu.transport import redis

from taskapp.queues import PRIORITIES

if TYPE_CHECKING:
    from kombu.transport.redis import Channel as _RedisChannel
else:
    # Mixed into two channels of kombu; a common base there would be one too many.
    _RedisChannel = object


class StrictOrder(_RedisChannel):
    """Makes a Redis channel of kombu take the first queue's every priority before the next queue.

    Stock kombu asks priority by priority across all queues, 0 first, so that a low queue's
    urgent message would overtake a critical queue's ordinary one. Here 9 is the highest, as it is
    on RabbitMQ; 0 stays under the queue's plain name.
    """

    queue_order: tuple[str, ...] = ()
    """Queues in the order they are taken; others follow in the order the worker named them."""

    def keys_in_order(self) -> list[str]:
        """Return the Redis lists of the queues this channel consumes, the first to take first."""
        rank = {queue: position for position, queue in enumerate(self.queue_order)}
        queues = sorted(self.active_queues, key=lambda queue: rank.get(queue, len(rank)))
        key = self._q_for_pri  # type: ignore[attr-defined]  # missing in the stubs
        return [key(queue, priority) for queue in queues for priority in reversed(PRIORITIES)]

    def _brpop_start(self, timeout: float | None = None) -> None:
        # kombu builds the key order inside this method and offers no smaller place to change it.
        keys = self.keys_in_order()
        if not keys:
            return
        command: list[Any] = ["BRPOP", *keys, self.brpop_timeout if timeout is None else timeout]
        if self.global_keyprefix:
            command = self.client._prefix_args(command)
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(*command)


class Channel(StrictOrder, redis.Channel):
    """A channel to one Redis."""

    from_transport_options = (*redis.Channel.from_transport_options, "queue_order")


class SentinelChannel(StrictOrder, redis.SentinelChannel):
    """A channel to the Redis that Sentinel names."""

    from_transport_options = (*redis.SentinelChannel.from_transport_options, "queue_order")


class Transport(redis.Transport):
    """One Redis."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """A Redis behind Sentinel."""

    Channel = SentinelChannel


TRANSPORTS = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}


class Connection(kombu.Connection):
    """A connection whose ``redis://`` means our transport; URLs are shown as they were typed.

    Other Celery apps in the process keep kombu's transport.
    """

    def get_transport_cls(self) -> type:
        """Return our transport for a Redis URL, kombu's for any other."""
        return TRANSPORTS.get(self.transport_cls) or super().get_transport_cls()
