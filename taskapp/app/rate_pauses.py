"""Pauses of a rate that a running task asks for, because the server it calls asked for one (HTTP 429).

self.pause_rate(30) ────────────────┐
error with retry_after_seconds ─────┴─► settlement of the run ──► no task of this key starts, on any node
"""

from __future__ import annotations

from math import isfinite
from numbers import Real
from time import monotonic
from typing import Any

from celery.exceptions import Retry
from celery.utils.log import get_logger

from taskapp.app.progress import is_of_a_worker
from taskapp.client.limits.of_call import declared_by
from taskapp.client.limits.rate_control import lend_limits
from taskapp.engine.limits import Rate
from taskapp.engine.settlement import Pause, of_this_run
from taskapp.errors.limits import BadPause, LimitNeedsRedis, NoRateToPause
from taskapp.errors.wording import shown
from taskapp.transport.limits_header import LIMITS_HEADER, rate_in
from taskapp.transport.transport import is_over_redis

logger = get_logger(__name__)

LONGEST_SECONDS = 86_400
"""Maximum length of a pause: a wrong ``Retry-After`` must not stop a key for years."""


def pause_for(task: Any, seconds: float) -> None:
    """Pause the rate key of the running ``task``; see ``Task.pause_rate``."""
    if not is_seconds(seconds) or seconds > LONGEST_SECONDS:
        raise BadPause(task.name, seconds, LONGEST_SECONDS)
    request = task.request
    rate = _rate_of(task, request)
    if rate is None:
        raise NoRateToPause(task.name)
    if not is_of_a_worker(request):
        return
    if not is_over_redis(task.app.conf.broker_url):
        raise LimitNeedsRedis(task.name, "pause_rate")
    _pause(task.app, rate, seconds)


def pause_after(task: Any, error: BaseException) -> None:
    """Pause the rate key of the running ``task``, if it has one, because its run ended with ``error``.

    That is the case if the error, or that of a retry, has ``retry_after_seconds``. Never raises: the error counts.
    """
    reason = error.exc if isinstance(error, Retry) else error
    seconds = retry_after_of(reason)
    if not seconds or not is_of_a_worker(task.request) or not is_over_redis(task.app.conf.broker_url):
        return
    try:
        if (rate := _rate_of(task, task.request)) is not None:
            _pause(task.app, rate, min(seconds, LONGEST_SECONDS))
    except Exception as problem:  # noqa: BLE001 - arguments that make no key, Redis is away
        logger.error("could not pause the rate of task %s[%s]: %s", task.name, task.request.id, shown(problem))


def retry_after_of(error: Any) -> float | None:
    """Return how many seconds ``error`` says to wait; ``None``: it does not say, or no valid number."""
    try:
        seconds = error.retry_after_seconds
    except Exception:  # noqa: BLE001 - it has no such attribute, or a property that fails
        return None
    return float(seconds) if is_seconds(seconds) else None


def is_seconds(value: Any) -> bool:
    """Return whether ``value`` is a number of seconds, 0 or more."""
    return not isinstance(value, bool) and isinstance(value, Real) and isfinite(value) and float(value) >= 0


def _rate_of(task: Any, request: Any) -> Rate | None:
    """Return the rate in the message of ``task``, or else the one its type declares for these arguments.

    Raises:
        BadLimitKey: The arguments make no key.
    """
    if (rate := rate_in(request.get(LIMITS_HEADER))) is not None:
        return rate
    declared = declared_by(task)
    if declared is None or declared.limiter is None or not declared.limiter.is_rated:
        return None
    return declared.limiter.limits(request.args or (), request.kwargs or {}).rates[-1]


def _pause(app: Any, rate: Rate, seconds: float) -> None:
    if (settlement := of_this_run()) is not None:
        settlement.pauses += (Pause(rate.name, rate.key, monotonic() + seconds),)
        return
    # Its message was acknowledged before it ran: nothing settles this run.
    with lend_limits(app) as admin:
        if admin is not None:
            admin.pause(rate.name, rate.key, seconds, is_of_run=True)
