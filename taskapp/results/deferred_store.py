"""Results that do not travel with the claim they end: stored first, outside the slot, then the claim is settled.

    run ends ──► slot is free, the claim is held on ──► stored ──► settled: follow-ups, acknowledgement
                       (the server of results may be away meanwhile)

Nobody else waits for that server: no slot, no event loop, no child process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from taskapp.engine.settlement import Settlement
from taskapp.errors.wording import shown
from taskapp.redis.outage import SERVER_GONE

logger = logging.getLogger(__name__)

MOST_RUNS = 10_000
MOST_BYTES = 64 * 1024 * 1024
AGAIN_SECONDS = 1.0
LOOK_SECONDS = 0.05


class Ended(NamedTuple):
    """A run that has ended and is not settled yet."""

    settlement: Settlement
    settle: Callable[[], None]
    """Called when all is stored."""
    refuse: Callable[[Exception], None]
    """Called when the server will never take it."""

    @property
    def size_bytes(self) -> int:
        """About what it takes to keep it."""
        return sum(len(getattr(step, "value", b"")) for step in self.settlement.external_writes)


class DeferredStore:
    """Stores what ended runs left, one after the other, on a daemon thread that starts with the first of them.

    A server that is away is waited for as long as it takes; the claims are held meanwhile, so whatever
    ends this process before has the tasks run again.

    Args:
        store: Stores all that a settlement has for the server; waits for the server.
    """

    def __init__(self, store: Callable[[Settlement], None]) -> None:
        self._store = store
        self._queue: SimpleQueue[tuple[Ended, int]] = SimpleQueue()
        self._counting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._runs = self._bytes = 0

    def put(self, ended: Ended) -> None:
        """Store what ``ended`` left, then settle it. Any thread may."""
        size_bytes = ended.size_bytes
        self._count(1, size_bytes)
        self._queue.put((ended, size_bytes))

    def has_room(self) -> bool:
        """Say whether more runs may begin: fewer than ``MOST_RUNS`` wait, with less than ``MOST_BYTES``."""
        return self._runs < MOST_RUNS and self._bytes < MOST_BYTES

    def finish(self, within_seconds: float) -> bool:
        """Wait until nothing waits any more; say whether that was so ``within_seconds``."""
        deadline = time.monotonic() + within_seconds
        while self._runs and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return not self._runs

    def _count(self, runs: int, size_bytes: int) -> None:
        with self._counting:
            self._runs += runs
            self._bytes += size_bytes
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="taskapp-later", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            ended, size_bytes = self._queue.get()
            try:
                self._finish(ended)
            except SERVER_GONE as error:
                logger.info("what a run left is not stored yet: %s", error)
                time.sleep(AGAIN_SECONDS)
                self._queue.put((ended, size_bytes))
            except Exception:  # whatever is wrong with one run, others are waiting
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
            logger.error("what a run left cannot be stored: %s", shown(error))
            ended.refuse(error)
        else:
            ended.settle()
