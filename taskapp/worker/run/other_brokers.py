"""The end of a run on another broker: store the result, publish the follow-ups, then acknowledge.

    run ends ──► result stored ──► follow-ups published ──► acknowledged by Celery

This happens in the slot, on the run's thread or in its child process. Until then RabbitMQ holds the message, and
redelivers it if this process ends.
"""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo
from celery.exceptions import Reject
from celery.utils.log import get_logger
from kombu.exceptions import OperationalError

from taskapp.client.deferred_publish import post
from taskapp.engine.settlement import Settlement
from taskapp.redis.outage import SERVER_GONE
from taskapp.results.backend import Results
from taskapp.worker.run.tracer import Outcome, Runner

logger = get_logger(__name__)


def carry_out(runner: Runner, outcome: Outcome, settlement: Settlement) -> Outcome:
    """Store and publish what a run left; return its outcome, or the outcome that rejects the message.

    If a server was unreachable for too long, the message is requeued, so that the task runs again.
    """
    backend = runner.backend
    try:
        if settlement.external_writes:
            backend.store_elsewhere(settlement, retry_seconds=backend.result_retry_seconds)
        post(runner.app, settlement.postings)
        if settlement.finished and isinstance(backend, Results):
            backend.forget_finished(settlement)
    except (OperationalError, *SERVER_GONE) as error:
        logger.error(
            "could not send the result or follow-ups of a run of %s: %s; it will run again", runner.task.name, error
        )
        return rejected(error, requeue=True)
    except Exception as error:
        # Another run would start at once and end the same way.
        logger.exception(
            "the result or a follow-up of a run of %s was refused; rejecting its message", runner.task.name
        )
        return rejected(error, requeue=False)
    return outcome


def rejected(error: Exception, *, requeue: bool) -> tuple[int, Any, None]:
    """Return the outcome of a run whose message is rejected, and requeued if ``requeue``."""
    try:
        raise Reject(str(error), requeue=requeue)
    except Reject:
        return 1, ExceptionInfo(internal=True), None
