"""How commands reach the engine: over the app's own broker, with its TLS, password or Sentinel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.redis import Link


@contextmanager
def engine() -> Iterator[tuple[Link, str]]:
    """Lend a connection to the engine and the prefix of its keys.

    Raises:
        click.ClickException: The broker is no Redis, or cannot be reached.
    """
    from taskapp.broker.transport import EngineChannel
    from taskapp.celery import app

    try:
        with app.connection_for_write() as connection:
            channel = connection.default_channel
            if not isinstance(channel, EngineChannel):
                raise click.ClickException(f"this needs Redis as the broker, not {connection.as_uri()}")
            yield channel.process.producer.link, channel.global_keyprefix
    except (RedisError, OSError, OperationalError) as error:
        raise click.ClickException(f"the broker cannot be reached: {error}; check TASKAPP_BROKER_URL") from error
