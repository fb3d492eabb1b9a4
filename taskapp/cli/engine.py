"""How commands reach the engine: over the app's own broker, errors as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.application import Engine


@contextmanager
def engine() -> Iterator[Engine]:
    """Lend what of the engine commands look at.

    Raises:
        click.ClickException: The broker cannot be reached.
        NoEngine: It is no Redis.
    """
    from taskapp.celery import app

    try:
        with app.engine() as lent:
            yield lent
    except (RedisError, OSError, OperationalError) as error:
        raise click.ClickException(f"the broker cannot be reached: {error}; check TASKAPP_BROKER_URL") from error
