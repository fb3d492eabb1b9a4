"""What the engine counts of a run: what became of it, how long it waited and took."""

from __future__ import annotations

from time import time
from typing import Any

from taskapp.broker.message_format import sent_at_of
from taskapp.broker.totals import NEITHER, CountedRun, never_ran, run_bucket, wait_bucket

WHAT = {
    "SUCCESS": "completed", "FAILURE": "failed", "RETRY": "retried", "REVOKED": "revoked", "REJECTED": "rejected",
    "IGNORED": "ignored",
}  # fmt: skip


def counted(request: Any, state: str, engine_now: float) -> CountedRun:
    """Return what is counted of a run that ends now.

    Args:
        request: Of the run, see ``Request``; one that never began has no ``time_start``.
        state: How it ended, in Celery's words.
        engine_now: The time by the clock of who submitted it, Unix seconds: the engine's, or this machine's.
    """
    started_at = request.time_start
    if not started_at:
        return never_ran(request._type, WHAT[state])
    took_seconds = time() - started_at
    run = run_bucket(took_seconds) if state == "SUCCESS" else NEITHER
    return CountedRun(request._type, WHAT[state], *run, *_wait(request._request_dict, engine_now - took_seconds))


def _wait(headers: dict[str, Any], started_at: float) -> tuple[str, int]:
    """Return how long a task waited that starts for the first time, and had no reason of its own to wait."""
    sent_at = sent_at_of(headers)
    if sent_at is None or headers.get("eta") or headers.get("retries") or _was_delivered_before(headers):
        return NEITHER
    return wait_bucket(started_at - sent_at)


def _was_delivered_before(headers: dict[str, Any]) -> bool:
    return bool((headers.get("delivery_info") or {}).get("redelivered"))
