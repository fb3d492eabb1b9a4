"""The end of a run whose message is not the engine's: the result, then what follows, then the acknowledgement.

    run ends ──► stored ──► follow-ups published ──► acknowledged by Celery

In the slot, on the run's own thread or in its child process: RabbitMQ holds the message meanwhile, and has
the task run again if this process ends before.
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
    """Store and publish what a run left; return its outcome, or that its message is rejected.

    It goes back to its queue when a server was away for too long, so that the task runs again.
    """
    backend = runner.backend
    try:
        if settlement.external_writes:
            backend.store_elsewhere(settlement, retry_seconds=backend.result_retry_seconds)
        post(runner.app, settlement.postings)
        if settlement.finished and isinstance(backend, Results):
            backend.forget_finished(settlement)
    except (OperationalError, *SERVER_GONE) as error:
        logger.error("what a run of %s left could not be sent: %s; it is to run again", runner.task.name, error)
        return rejected(error, requeue=True)
    except Exception as error:
        # A repetition would end the same way, and begin at once.
        logger.exception("what a run of %s left was refused; its message is rejected", runner.task.name)
        return rejected(error, requeue=False)
    return outcome


def rejected(error: Exception, *, requeue: bool) -> tuple[int, Any, None]:
    """Return the outcome of a run whose message is rejected, to run again with ``requeue``."""
    try:
        raise Reject(str(error), requeue=requeue)
    except Reject:
        return 1, ExceptionInfo(internal=True), None
