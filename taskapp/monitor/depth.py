"""How many messages wait, by queue and priority, read from the broker itself."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from celery import Celery
from redis import Redis

from taskapp.queues import PRIORITIES, ready_key
from taskapp.settings import Settings

Depths = dict[tuple[str, int | str], int]


def queue_depths(app: Celery, settings: Settings) -> Depths:
    """Return the number of ready messages by queue and priority, 0 to 9.

    A broker that is not Redis does not tell priorities; there the priority is ``all``, and a
    queue that no node has declared yet is left out.

    Raises:
        The broker's connection errors.
    """
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)
        if connection.transport.driver_type != "redis":
            return _declared_depths(connection, settings.queues)
        # kombu's client of this connection: same URL, TLS and timeouts, no second way to connect.
        channel: Any = connection.default_channel
        client: Redis = channel.client
        wanted = [(queue, priority) for queue in settings.queues for priority in PRIORITIES]
        with client.pipeline(transaction=False) as pipeline:
            for queue, priority in wanted:
                pipeline.llen(ready_key(queue, priority))
            return dict(zip(wanted, pipeline.execute(), strict=True))


def _declared_depths(connection: Any, queues: Iterable[str]) -> Depths:
    depths: Depths = {}
    for queue in queues:
        # The broker closes the channel over a queue it does not know, hence one for each.
        with suppress(*connection.channel_errors), connection.channel() as channel:
            depths[queue, "all"] = channel.queue_declare(queue, passive=True).message_count
    return depths
