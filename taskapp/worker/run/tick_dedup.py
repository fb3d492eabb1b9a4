"""Ticks that came by a broker that is not the engine's: which of several messages of one tick runs.

Beat publishes a tick again when it cannot know whether the broker has it. Before a run begins, in its slot, the Redis
of the schedules is asked whether another message of that tick has run, or runs.
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

WHY = {"running": "another message of the same tick runs", "ended": "that tick has run"}


class Repeat(Ignore):
    """A message whose tick another message has run, or runs."""


def is_asked_for(given: dict[str, Any]) -> bool:
    """Say whether these are the headers of a tick that may be a repeat: the engine hands out none."""
    return SCHEDULE_HEADER in given and "lease" not in (given.get("properties") or ())


def held_back(runner: Runner, given: dict[str, Any]) -> Outcome | None:
    """Return how a message ends that is not to run; ``None``: its run may begin. Waits for the server."""
    run, backend = tick_run_of(given), runner.app.backend
    if run is None or not isinstance(backend, Results):
        return None
    try:
        is_again = _is_again(runner, given)
        answer = backend.store.begin_tick(run, is_again=is_again, retry_seconds=backend.result_retry_seconds)
        if answer == "run" and not runner.task.acks_late:
            # It is acknowledged: nobody will say more of it.
            started = Settlement()
            started.external_writes.append(EndOfRun(run, EndOfTick(*run.tick, "STARTED", 0)))
            backend.store_elsewhere(started, retry_seconds=backend.result_retry_seconds)
    except SERVER_GONE as error:
        logger.error("whether a tick of schedule %r has run cannot be found out: %s", run.tick.schedule, error)
        return rejected(error, requeue=True)
    if answer == "run":
        return None
    logger.info(
        "task %s of schedule %r is dropped: %s", run.tick.id, run.tick.schedule, WHY[answer],
        extra={"action": "tick_repeat"},
    )  # fmt: skip
    return _dropped(run.tick.id)


def tell_end(
    app: Any, headers: Mapping[str, Any], state: str, took_ms: int, then: Callable[[], Any] = lambda: None
) -> None:
    """Let the schedule hear how a run of it ended, outside of slots, and call ``then``; at once if it is no tick's."""
    run, backend = tick_run_of(headers), app.backend
    if run is None or not isinstance(backend, Results):
        then()
        return
    settlement = Settlement()
    settlement.external_writes.append(EndOfRun(run, EndOfTick(*run.tick, state, took_ms)))
    backend.later.put(Ended(settlement, then, lambda _: then()))


def _is_again(runner: Runner, given: dict[str, Any]) -> bool:
    """Say whether the broker may have given this message out before; only AMQP's brokers always say."""
    is_told = str(runner.app.conf.broker_read_url or runner.app.conf.broker_url).startswith(("amqp", "pyamqp"))
    return not is_told or bool((given.get("delivery_info") or {}).get("redelivered"))


def _dropped(identity: str) -> tuple[int, Any, None]:
    try:
        raise Repeat(identity)
    except Repeat:
        return 1, ExceptionInfo(internal=True), None
