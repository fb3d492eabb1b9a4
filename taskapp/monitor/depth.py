"""Number of ready messages per queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from taskapp.app.application import Celery
from taskapp.engine.snapshot import read_snapshot
from taskapp.transport.transport import is_over_redis


def depths(app: Celery, queues: Sequence[str]) -> dict[str, int]:
    """Return the number of ready messages of each queue.

    Raises:
        The broker's connection errors.
    """
    if not is_over_redis(app.conf.broker_url):
        return {**dict.fromkeys(queues, 0), **declared_depths(app, queues)}
    with app.engine() as engine:
        return {queue.name: queue.depth for queue in read_snapshot(engine.link, engine.prefix, queues).queues}


def declared_depths(app: Celery, queues: Iterable[str]) -> dict[str, int]:
    """Return the number of ready messages of each queue on a broker other than Redis, by passive declaration.

    Omits queues that no node has declared yet.

    Raises:
        The broker's connection errors.
    """
    depths: dict[str, int] = {}
    with app.connection_for_read() as held:
        connection: Any = held
        connection.ensure_connection(max_retries=1, interval_start=0)
        for queue in queues:
            # The broker closes the channel if it does not know the queue, hence one channel per queue.
            with suppress(*connection.channel_errors), connection.channel() as channel:
                depths[queue] = channel.queue_declare(queue, passive=True).message_count
    return depths
