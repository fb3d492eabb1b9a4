"""Writing results: fenced, in one round trip, and not giving up when the server is away."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

from celery.worker import state as worker_state
from redis import ConnectionPool, ResponseError
from redis.exceptions import ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError

from taskapp.redis import Link
from taskapp.results.outage import SERVER_GONE, Outage

UNKNOWN_RUN = -1
PASSING_PROBLEMS = (OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)
PASSING_WORDS = ("MISCONF", "NOREPLICAS")
"""Refusals that end by themselves or when somebody mends the server: a failover, a full disk, a full memory."""


class Outcome(IntEnum):
    """What became of a result that was to be written; the numbers are those of ``store.lua``."""

    STORED = 1
    KEPT = 0
    """A success, or the final result of the same run, was there and stays."""
    CLAIM_LOST = -1
    """Stale: the claim on the message is gone, so another run decides."""
    OVERTAKEN = -2
    """Stale: a later run has written."""


class Fence(NamedTuple):
    """By what the server tells whether a run still counts."""

    run: int = UNKNOWN_RUN
    """Grows with every run of the task, by redelivery, retry or replacement."""
    lease: str = ""
    """Key of the hash whose field ``tag`` exists as long as the claim holds; empty if there is none to look at."""
    tag: str = ""


class Record(NamedTuple):
    """One result, ready to be written."""

    task_id: str
    key: bytes
    value: str | bytes
    keep_seconds: int
    """0 for ever."""
    is_final: bool
    fence: Fence


def fence_of(request: Any, task_id: str, *, with_lease: bool) -> Fence:
    """Return the fence of the run that ``request`` (a Celery ``Context``) describes.

    Args:
        request: None, or one without the engine's properties, gives no fence.
        task_id: Whose result is written; a task may set the state of another, whose runs differ.
        with_lease: Whether the lease lies beside the results, and is held until the result is stored.
    """
    properties = getattr(request, "properties", None)
    if not properties or "deliveries" not in properties:
        return Fence()
    run = _run(request, properties["deliveries"]) if request.id == task_id else UNKNOWN_RUN
    return Fence(run, properties["lease"], properties["delivery_tag"]) if with_lease else Fence(run)


def _run(request: Any, deliveries: int) -> int:
    """Return one number that grows with every run: a retry and a replacement come as new messages."""
    replaced, retries = request.replaced_task_nesting or 0, request.retries or 0
    return int((replaced * 1_000_000 + retries) * 1_000 + min(deliveries, 999))


class Store:
    """Writes results over one held connection, from any thread, in any forked child."""

    def __init__(self, pool: Callable[[], ConnectionPool], prefix: str) -> None:
        self._pool, self._prefix = pool, prefix
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        # The same connection opened anew: each one made counts against the pool's limit.
        make: Any = cache(lambda: self._pool().make_connection())
        self._link = Link(make, __package__)

    def write(self, record: Record, *, retry_seconds: float) -> Outcome:
        """Write ``record`` in one round trip and return what became of it.

        Repeated while the server is away or refuses for a passing reason, up to ``retry_seconds``:
        a result written twice is the same result.

        Raises:
            ResultServerGone: The server was away for that long.
            redis.ResponseError: It refused.
        """
        if self._pid != os.getpid():
            self._start_over()
        outage = Outage(f"storing the result of task {record.task_id}", retry_seconds)
        while True:
            try:
                outcome = Outcome(self._run(record))
            except (*SERVER_GONE, ResponseError) as error:
                if _is_lasting(error) or _worker_ends_at_once():
                    raise
                # Behind the same name there may be another server soon.
                self._link.close()
                outage.pause(error)
            else:
                outage.end()
                return outcome

    def _run(self, record: Record) -> int:
        _, key, value, keep_seconds, is_final, fence = record
        return int(self._link.run("store", self._prefix, key, value, keep_seconds, int(is_final), *fence))


def _is_lasting(error: Exception) -> bool:
    passes = isinstance(error, PASSING_PROBLEMS) or str(error).startswith(PASSING_WORDS)
    return isinstance(error, ResponseError) and not passes


def _worker_ends_at_once() -> bool:
    """Say whether this worker was told to stop without finishing its tasks (SIGQUIT, or SIGINT twice)."""
    return worker_state.should_terminate not in (None, False)
