"""What the engine counts of a run: what became of it, how long it waited and took."""

from __future__ import annotations

from functools import cache
from time import time
from typing import Any

from taskapp.engine.counters import CountedRun
from taskapp.transport.codec import ready_at_of

WHAT = {
    "SUCCESS": "completed", "FAILURE": "failed", "RETRY": "retried", "REVOKED": "revoked", "REJECTED": "rejected",
    "IGNORED": "ignored",
}  # fmt: skip


def counted(request: Any, state: str, ahead_seconds: float) -> CountedRun:
    """Return what is counted of a run that ends now.

    Args:
        request: Of the run, see ``Request``; one that never began has no ``time_start``.
        state: How it ended, in Celery's words.
        ahead_seconds: How far the clock of who submitted it is ahead of this machine's.
    """
    started_at = request.time_start
    if not started_at:
        return CountedRun(request.type, WHAT[state])
    run_seconds = None
    if state == "SUCCESS":
        run_seconds = request.seen.run_seconds
        if run_seconds is None:
            run_seconds = time() - started_at
    ready_at = ready_at_of(request.request_dict)
    if ready_at is None:
        return CountedRun(request.type, WHAT[state], run_seconds)
    return CountedRun(request.type, WHAT[state], run_seconds, max(started_at + ahead_seconds - ready_at, 0.0))


@cache
def keeps_successes(app: Any) -> bool:
    """Return whether Celery counts which tasks succeeded, to run none of them again."""
    return bool(app.conf.worker_deduplicate_successful_tasks)
