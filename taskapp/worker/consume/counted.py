"""The engine's counters for a run: its outcome, how long it waited and how long it took."""

from __future__ import annotations

from functools import cache
from time import time
from typing import Any

from taskapp.engine.counters import CountedRun
from taskapp.transport.codec import ready_at_of

OUTCOMES = {
    "SUCCESS": "completed", "FAILURE": "failed", "RETRY": "retried", "REVOKED": "revoked", "REJECTED": "rejected",
    "IGNORED": "ignored",
}  # fmt: skip


def counted(request: Any, state: str, ahead_seconds: float) -> CountedRun:
    """Return the counter entry for a run that ends now.

    Args:
        request: The run's ``Request``; its ``time_start`` is unset if the task never started.
        state: Celery's state of the ended run.
        ahead_seconds: How far the submitter's clock is ahead of this machine's.
    """
    started_at = request.time_start
    if not started_at:
        return CountedRun(request.type, OUTCOMES[state])
    run_seconds = None
    if state == "SUCCESS":
        run_seconds = request.seen.run_seconds
        if run_seconds is None:
            run_seconds = time() - started_at
    ready_at = ready_at_of(request.request_dict)
    if ready_at is None:
        return CountedRun(request.type, OUTCOMES[state], run_seconds)
    return CountedRun(request.type, OUTCOMES[state], run_seconds, max(started_at + ahead_seconds - ready_at, 0.0))


@cache
def keeps_successes(app: Any) -> bool:
    """Return whether Celery remembers which tasks succeeded, so that none of them runs again."""
    return bool(app.conf.worker_deduplicate_successful_tasks)
