"""Stores results that cannot be part of the settlement: first the result, outside the slot, then the claim is settled.

    run ends ──► slot is free, claim is still held ──► stored ──► settled: follow-ups, acknowledgement
                       (the result server may be away)

Nothing else waits for that server: no slot, no event loop, no child process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from taskapp.background import LazyThread
from taskapp.engine.settlement import Settlement
from taskapp.errors.wording import shown
from taskapp.redis.outage import SERVER_GONE

logger = logging.getLogger(__name__)

MOST_RUNS = 10_000
MOST_BYTES = 64 * 1024 * 1024
AGAIN_SECONDS = 1.0
LOOK_SECONDS = 0.05


class Ended(NamedTuple):
    """A run that has ended but is not settled yet."""

    settlement: Settlement
    settle: Callable[[], None]
    """Called once everything is stored."""
    refuse: Callable[[Exception], None]
    """Called if the server refuses it permanently."""

    @property
    def size_bytes(self) -> int:
        """Approximate memory that it takes."""
        return sum(len(getattr(step, "value", b"")) for step in self.settlement.external_writes)


class DeferredStore:
    """Stores results of ended runs one by one, on a daemon thread that starts with the first of them.

    It waits for an absent server without a limit and holds the claims, so that the tasks run again if this process
    ends before.

    Args:
        store: Carries out a settlement's external writes; waits for the server.
    """

    def __init__(self, store: Callable[[Settlement], None]) -> None:
        self._store = store
        self._queue: SimpleQueue[tuple[Ended, int]] = SimpleQueue()
        self._counting = threading.Lock()
        self._thread = LazyThread(self._run, "later")
        self._runs = self._bytes = 0

    def put(self, ended: Ended) -> None:
        """Store the results of ``ended``, then settle it. Any thread may call this."""
        size_bytes = ended.size_bytes
        self._count(1, size_bytes)
        self._queue.put((ended, size_bytes))

    def has_room(self) -> bool:
        """Return whether more runs may start: fewer than ``MOST_RUNS`` wait, with less than ``MOST_BYTES``."""
        return self._runs < MOST_RUNS and self._bytes < MOST_BYTES

    def finish(self, within_seconds: float) -> bool:
        """Wait up to ``within_seconds`` until all runs are settled; return whether they are."""
        deadline = time.monotonic() + within_seconds
        while self._runs and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return not self._runs

    def _count(self, runs: int, size_bytes: int) -> None:
        with self._counting:
            self._runs += runs
            self._bytes += size_bytes
        self._thread.start()

    def _run(self) -> None:
        while True:
            ended, size_bytes = self._queue.get()
            try:
                self._finish(ended)
            except SERVER_GONE as error:
                logger.info("the result of a run could not be stored yet: %s", error)
                time.sleep(AGAIN_SECONDS)
                self._queue.put((ended, size_bytes))
            except Exception:  # a problem with one run must not stop the others
                logger.exception("a run could not be settled; its message stays with this node")
                self._count(-1, -size_bytes)
            else:
                self._count(-1, -size_bytes)

    def _finish(self, ended: Ended) -> None:
        try:
            self._store(ended.settlement)
        except SERVER_GONE:
            raise
        except Exception as error:  # noqa: BLE001 - the same
            logger.error("the result of a run cannot be stored: %s", shown(error))
            ended.refuse(error)
        else:
            ended.settle()
