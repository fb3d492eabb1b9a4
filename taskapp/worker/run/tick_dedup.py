"""Deduplicates ticks on other brokers: only one of several messages of a tick runs.

Beat publishes a tick again if it does not know whether the broker has received it. Before a run starts, its slot asks
the schedules' Redis whether another message of the tick is running or has run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.exceptions import Ignore
from celery.utils.log import get_logger

from taskapp.engine.settlement import SCHEDULE_HEADER, EndOfTick, Settlement
from taskapp.redis.outage import SERVER_GONE
from taskapp.results.backend import Results
from taskapp.results.deferred_store import Ended
from taskapp.results.store import EndOfRun, tick_run_of
from taskapp.worker.run.other_brokers import rejected
from taskapp.worker.run.tracer import Outcome, Runner

logger = get_logger(__name__)

REASONS = {"running": "another message of the same tick is running", "ended": "that tick has run"}


class Repeat(Ignore):
    """A message of a tick that another message is running or has run."""


def may_repeat(given: dict[str, Any]) -> bool:
    """Return whether these are headers of a tick that may be a repeat; ticks from the engine never are."""
    return SCHEDULE_HEADER in given and "lease" not in (given.get("properties") or ())


def outcome_of_repeat(runner: Runner, given: dict[str, Any]) -> Outcome | None:
    """Return the outcome of a message that must not run; ``None`` if it may. Blocks until the server answers."""
    run, backend = tick_run_of(given), runner.app.backend
    if run is None or not isinstance(backend, Results):
        return None
    try:
        is_again = _is_again(runner, given)
        answer = backend.store.begin_tick(run, is_again=is_again, retry_seconds=backend.result_retry_seconds)
        if answer == "run" and not runner.task.acks_late:
            # A task acknowledged early reports nothing later.
            started = Settlement()
            started.external_writes.append(EndOfRun(run, EndOfTick(*run.tick, "STARTED", 0)))
            backend.store_elsewhere(started, retry_seconds=backend.result_retry_seconds)
    except SERVER_GONE as error:
        logger.error(
            "could not find out whether a tick of schedule %r has run: %s; returning it to its queue",
            run.tick.schedule, error,
        )  # fmt: skip
        return rejected(error, requeue=True)
    if answer == "run":
        return None
    logger.info(
        "dropping task %s of schedule %r: %s", run.tick.id, run.tick.schedule, REASONS[answer],
        extra={"action": "tick_repeat"},
    )  # fmt: skip
    return _dropped(run.tick.id)


def report_end(
    app: Any, headers: Mapping[str, Any], state: str, took_ms: int, then: Callable[[], Any] = lambda: None
) -> None:
    """Report the end of a tick's run to its schedule, outside the slots, then call ``then``.

    For a task that is not a tick, only call ``then``, at once.
    """
    run, backend = tick_run_of(headers), app.backend
    if run is None or not isinstance(backend, Results):
        then()
        return
    settlement = Settlement()
    settlement.external_writes.append(EndOfRun(run, EndOfTick(*run.tick, state, took_ms)))
    backend.later.put(Ended(settlement, then, lambda _: then()))


def _is_again(runner: Runner, given: dict[str, Any]) -> bool:
    """Return whether the broker may have delivered this message before; only AMQP brokers reliably mark redelivery."""
    is_amqp = str(runner.app.conf.broker_read_url or runner.app.conf.broker_url).startswith(("amqp", "pyamqp"))
    return not is_amqp or bool((given.get("delivery_info") or {}).get("redelivered"))


def _dropped(identity: str) -> tuple[int, Any, None]:
    try:
        raise Repeat(identity)
    except Repeat:
        return 1, ExceptionInfo(internal=True), None
