"""How many messages wait, by queue and priority, read from the broker itself."""

from __future__ import annotations

from typing import Any

from celery import Celery
from redis import Redis

from taskapp.queues import PRIORITIES, ready_key
from taskapp.settings import Settings

Depths = dict[tuple[str, int | str], int]


def queue_depths(app: Celery, settings: Settings) -> Depths:
    """Return the number of ready messages by queue and priority, 0 to 9.

    A broker that is not Redis does not tell priorities; there the priority is ``all``.

    Raises:
        The broker's connection errors.
    """
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        if connection.transport.driver_type != "redis":
            return {
                (queue, "all"): channel.queue_declare(queue, passive=True).message_count for queue in settings.queues
            }
        # kombu's client of this connection: same URL, TLS and timeouts, no second way to connect.
        client: Redis = channel.client
        wanted = [(queue, priority) for queue in settings.queues for priority in PRIORITIES]
        with client.pipeline(transaction=False) as pipeline:
            for queue, priority in wanted:
                pipeline.llen(ready_key(queue, priority))
            return dict(zip(wanted, pipeline.execute(), strict=True))
