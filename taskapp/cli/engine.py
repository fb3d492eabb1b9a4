"""Connects commands to the engine over the app's broker, and maps errors to one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError, ResponseError

from taskapp.app.resources import Engine
from taskapp.cli.target import chosen_app, own_command
from taskapp.redis.link import OutcomeUnknown
from taskapp.transport.transport import is_over_redis
from taskapp.urls import revealed

if TYPE_CHECKING:
    from taskapp.schedules.store import Schedules

Lent = TypeVar("Lent")


@contextmanager
def engine() -> Iterator[Engine]:
    """Lend the engine; raises as ``lent_by`` does."""
    app = chosen_app()

    with lent_by(app.engine()) as opened:
        yield opened


@contextmanager
def schedules() -> Iterator[Schedules]:
    """Lend the schedules; raises as ``lent_by`` does."""
    app = chosen_app()

    with lent_by(app.schedules()) as store:
        store.command = own_command()
        yield store


@contextmanager
def lent_by(opening: AbstractContextManager[Lent]) -> Iterator[Lent]:
    """Lend the object that ``opening`` yields.

    Raises:
        click.ClickException: Redis cannot be reached, or refuses.
        NoEngine: The broker is not Redis.
    """
    with ExitStack() as held:
        try:
            opened = held.enter_context(opening)
        except (RedisError, OSError, OperationalError) as error:
            raise _unreachable(error) from error
        # From here on, an OSError comes from reading or printing: connection errors have their own classes.
        try:
            yield opened
        except ResponseError as error:
            raise click.ClickException(f"Redis refused: {error}; this step changed nothing") from error
        except OutcomeUnknown as error:
            why = f"the connection broke before the answer: {error}"
            raise click.ClickException(f"{why}; check whether it took effect before repeating it") from error
        except RedisError as error:
            raise _unreachable(error) from error


def require_queue(queue: str | None, others: Iterable[str]) -> None:
    """Check that ``queue`` is configured or still holds messages.

    Args:
        queue: The queue the user named; ``None``: none.
        others: Queues that still hold messages, whether or not a setting names them.

    Raises:
        UnknownQueue: It is neither.
    """
    app = chosen_app()
    if queue is not None and queue not in app.queue_names() and queue not in others:
        raise app.unknown_queue(queue)


def _unreachable(error: Exception) -> click.ClickException:
    from taskapp.settings import get_settings

    is_broker = is_over_redis(revealed(get_settings().broker_url) or "redis://")
    server, setting = ("broker", "TASKAPP_BROKER_URL") if is_broker else ("result Redis", "TASKAPP_RESULT_URL")
    return click.ClickException(f"the {server} cannot be reached: {error}; check {setting}")
