"""How commands reach the engine: over the app's own broker, errors as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from taskapp.application import Engine
from taskapp.redis import OutcomeUnknown
from taskapp.schedules.store import Schedules


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
        raise _unreachable(error) from error


@contextmanager
def schedules() -> Iterator[Schedules]:
    """Lend the schedules.

    Raises:
        click.ClickException: Redis cannot be reached, or refuses.
        NoEngine: The broker is no Redis.
    """
    from taskapp.celery import app

    with ExitStack() as held:
        try:
            lent = held.enter_context(app.schedules())
        except (RedisError, OSError, OperationalError) as error:
            raise _unreachable(error) from error
        # From here on an OSError is of what is read or printed: the connection's have classes of their own.
        try:
            yield lent
        except ResponseError as error:
            raise click.ClickException(f"Redis refused: {error}; nothing was changed by this step") from error
        except OutcomeUnknown as error:
            why = f"the connection broke before the answer: {error}"
            raise click.ClickException(f"{why}; see whether it was done with: taskapp schedules list") from error
        except RedisError as error:
            raise _unreachable(error) from error


def _unreachable(error: Exception) -> click.ClickException:
    return click.ClickException(f"the broker cannot be reached: {error}; check TASKAPP_BROKER_URL")
