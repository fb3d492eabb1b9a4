"""How commands reach the engine: over the app's own broker, errors as one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from taskapp.app.resources import Engine
from taskapp.errors import UnknownQueue
from taskapp.redis.link import OutcomeUnknown
from taskapp.schedules.store import Schedules
from taskapp.transport.transport import is_over_redis
from taskapp.urls import revealed

Lent = TypeVar("Lent")


@contextmanager
def engine() -> Iterator[Engine]:
    """Lend what of the engine commands look at; errors as with ``lent_by``."""
    from taskapp.celery import app

    with lent_by(app.engine()) as lent:
        yield lent


@contextmanager
def schedules() -> Iterator[Schedules]:
    """Lend the schedules; errors as with ``lent_by``."""
    from taskapp.celery import app

    with lent_by(app.schedules()) as lent:
        yield lent


@contextmanager
def lent_by(opening: AbstractContextManager[Lent]) -> Iterator[Lent]:
    """Lend what ``opening`` does.

    Raises:
        click.ClickException: Redis cannot be reached, or refuses.
        NoEngine: The broker is no Redis.
    """
    with ExitStack() as held:
        try:
            lent = held.enter_context(opening)
        except (RedisError, OSError, OperationalError) as error:
            raise _unreachable(error) from error
        # From here on an OSError is of what is read or printed: the connection's have classes of their own.
        try:
            yield lent
        except ResponseError as error:
            raise click.ClickException(f"Redis refused: {error}; nothing was changed by this step") from error
        except OutcomeUnknown as error:
            why = f"the connection broke before the answer: {error}"
            raise click.ClickException(f"{why}; look whether it was done before doing it again") from error
        except RedisError as error:
            raise _unreachable(error) from error


def require_queue(queue: str | None, others: Iterable[str]) -> None:
    """Make sure that ``queue`` exists, or that something is left of it.

    Args:
        queue: What was typed; ``None``: nothing.
        others: Queues that no setting names any more, of which something is left.

    Raises:
        UnknownQueue: There is no such queue.
    """
    from taskapp.settings import get_settings

    known = get_settings().queues
    if queue is not None and queue not in known and queue not in others:
        raise UnknownQueue(queue, known)


def _unreachable(error: Exception) -> click.ClickException:
    from taskapp.settings import get_settings

    is_broker = is_over_redis(revealed(get_settings().broker_url) or "redis://")
    server, setting = ("broker", "TASKAPP_BROKER_URL") if is_broker else ("Redis of results", "TASKAPP_RESULT_URL")
    return click.ClickException(f"the {server} cannot be reached: {error}; check {setting}")
