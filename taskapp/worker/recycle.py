"""Checks made as the loop turns: liveness for probes, the pool's state, and the limits for recycling the node."""

from __future__ import annotations

import resource
from time import monotonic
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state as stock

from taskapp.probes.health import Status
from taskapp.settings import Settings

logger = get_logger(__name__)

# The stubs are incomplete.
state: Any = stock

EXIT_RECYCLED = 75
"""sysexits.h: temporary failure; restart the program."""
LOOK_SECONDS = 1.0
ABANDONED_THREADS_MOST = 4
"""Maximum number of threads that hang in tasks past their hard time limit; Python cannot end them."""


class RecycleCheck:
    """Called on each turn of the loop: checks the task count each time, everything else once a second."""

    def __init__(self, worker: Any, status: Status, settings: Settings) -> None:
        self._worker = worker
        self._status = status
        self._max_tasks = settings.max_tasks_per_node or float("inf")
        self._max_memory_mb = settings.max_memory_mb
        self._look_at = 0.0

    def __call__(self) -> None:
        """Run the checks that are due."""
        if self.has_begun_enough():
            self._recycle(f"this node has started {state.all_total_count[0]} tasks; its limit is {self._max_tasks}")
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        self._status.turn_due_at = now
        self._look(now)

    def has_begun_enough(self) -> bool:
        """Return whether this node has reached its task limit and must claim no more; the next turn starts a drain."""
        return bool(state.all_total_count[0] >= self._max_tasks)

    def _look(self, now: float) -> None:
        find_problem = getattr(self._worker.pool, "problem", None)
        self._status.pool_problem = find_problem() if find_problem is not None else ""
        if not self._status.pool_problem:
            self._status.pool_at = now
        if not self._worker.drain.ends_at:
            self._worker.stop_signals.mend()
        if (watch_again := getattr(self._worker.hub, "watch_again", None)) is not None:
            watch_again()
        if reason := self._over_memory():
            self._worker.drain.blame()
            self._recycle(reason)
        elif reason := self._hanging():
            self._recycle(reason)

    def _recycle(self, reason: str) -> None:
        if state.should_stop is None:
            logger.warning("%s: draining, then exiting with code %d to be restarted", reason, EXIT_RECYCLED)
            state.should_stop = EXIT_RECYCLED

    def _over_memory(self) -> str:
        if self._max_memory_mb and (used_mb := resident_mb()) > self._max_memory_mb:
            return f"this node uses {used_mb:.0f} MiB of memory; its limit is {self._max_memory_mb} MiB"
        return ""

    def _hanging(self) -> str:
        abandoned = getattr(getattr(self._worker.pool, "threads", None), "abandoned", 0)
        if abandoned > ABANDONED_THREADS_MOST:
            return f"{abandoned} threads of this node hang in tasks past their time limit"
        return ""


def resident_mb() -> float:
    """Return the resident memory of this process, without children, in MiB; without ``/proc``, its peak."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - once a second
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
