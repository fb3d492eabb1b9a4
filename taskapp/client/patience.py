"""How long a submit waits for its broker, and which error it raises in the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from math import inf
from time import monotonic, sleep
from types import MappingProxyType
from typing import Any

from celery.exceptions import QueueNotFound
from kombu.exceptions import LimitExceeded, OperationalError
from redis.exceptions import RedisError

from taskapp.engine.settlement import is_only_awaited_by_its_slot
from taskapp.errors import BrokerUnavailable, NotQueued
from taskapp.errors.publishing import PublishOutcomeUnknown
from taskapp.transport.rabbitmq import Unconfirmed, submitting
from taskapp.transport.transport import is_over_rabbitmq, is_over_redis

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.1
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def patiently(
    app: Any, name: str, task_id: str, send: Callable[[], Any], options: Mapping[str, Any] = NO_OPTIONS,
    began_at: float | None = None,
) -> Any:  # fmt: skip
    """Call ``send``, again while the broker of ``app`` cannot be reached, up to the deadline; return its result.

    Follow-ups of a run have no deadline: the run has done its work, and only its slot waits.

    Raises:
        BrokerUnavailable: The deadline has passed; nothing was queued.
        PublishOutcomeUnknown: It has passed, and the broker may have the message.
        UnknownQueue: The queue in ``options`` does not exist.
    """
    is_patient = is_only_awaited_by_its_slot()
    deadline = inf if is_patient else (began_at or monotonic()) + app.settings.submit_deadline_seconds
    with submitting(deadline) as submission:
        while True:
            began_at = monotonic()
            try:
                return send()
            except NotQueued as error:
                raise unavailable(app, name, task_id, error) from error
            except QueueNotFound as error:
                raise app.unknown_queue(str(options.get("queue"))) from error
            except Unconfirmed as error:
                raise PublishOutcomeUnknown(task_id, app.settings.submit_deadline_seconds, error) from error
            except (OperationalError, RedisError, OSError, LimitExceeded) as error:
                # The engine reports the outcome of a push with its own errors; here no push was started.
                pause_or_raise(app, name, task_id, error, began_at, deadline, in_doubt=submission.in_doubt)
                if is_patient:
                    logger.warning("a follow-up %r waits until the broker can be reached: %s", name, error)
                    is_patient = False


def pause_or_raise(
    app: Any, name: str, task_id: str, error: Exception, began_at: float, deadline: float, *, in_doubt: bool = False
) -> None:
    """Wait before another attempt; raise if one as long as the last, started at ``began_at``, misses ``deadline``."""
    now, url, seconds = monotonic(), app.conf.broker_url, app.settings.submit_deadline_seconds
    is_known = is_over_redis(url) or is_over_rabbitmq(url)
    if is_known and now + (now - began_at) + PAUSE_SECONDS < deadline:
        sleep(PAUSE_SECONDS)
    elif in_doubt:
        raise PublishOutcomeUnknown(task_id, seconds, error) from error
    else:
        raise BrokerUnavailable(name, task_id, seconds, error) from error


def unavailable(app: Any, name: str, task_id: str, error: NotQueued) -> BrokerUnavailable:
    """Return the error for the caller of a submit that was not queued."""
    return BrokerUnavailable(name, task_id, app.settings.submit_deadline_seconds, error.reason)
