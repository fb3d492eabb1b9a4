"""Celery's command ``rate_limit``, for a rate that the engine counts: one limit, for all nodes, also those of later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taskapp.client.limits.of_call import declared_by
from taskapp.client.limits.rates import MOST, BadRate, PerPeriod, read_rate
from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.transport.channel import EngineChannel
from taskapp.transport.transport import is_over_redis

UNLIMITED = PerPeriod(MOST, 1_000)


def set_rate(app: Any, task: str, value: Any) -> None:
    """Set the rate of all tasks of the type ``task``; it wins over code until ``taskapp limits clear``.

    Does nothing for a type with ``rate_scope="node"``, on other brokers, or if ``value`` is not a rate: nodes get the
    command as well, and report that.

    Args:
        app: The app.
        task: Name of the task type.
        value: A rate as in ``rate_limit``; 0: no limit, as in Celery.

    Raises:
        kombu.exceptions.OperationalError, redis.exceptions.RedisError: Redis is away.
    """
    declared = declared_by(app.known_task(task))
    given = declared.given if declared is not None else {}
    if given.get("rate_scope") == "node" or not is_over_redis(app.conf.broker_write_url):
        return
    try:
        rate = UNLIMITED if _is_zero(value) else read_rate(value) or UNLIMITED
    except BadRate:
        return
    with lend_limits(app) as admin:
        if admin is None:
            return
        known = admin.read_limits().get(task)
        burst = given.get("rate_burst") or rate.usual_burst
        admin.set_limit(task, {**(known.set if known is not None else {}), **rate._asdict(), "burst": burst})


@contextmanager
def lend_limits(app: Any) -> Iterator[LimitsAdmin | None]:
    """Lend what changes limits; ``None``: ``app`` has the engine of a test. Errors are those of ``set_rate``."""
    with app.lend_producer() as producer:
        channel = producer.channel
        link = getattr(channel.process.producer, "link", None) if isinstance(channel, EngineChannel) else None
        yield None if link is None else LimitsAdmin(link, channel.global_keyprefix)


def _is_zero(value: Any) -> bool:
    number = value.partition("/")[0] if isinstance(value, str) else value
    try:
        return not isinstance(number, bool) and float(number) == 0
    except (TypeError, ValueError):
        return False
