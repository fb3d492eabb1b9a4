"""What a node looks after as its loop turns: that probes see it turn, its pool, and when it has had enough."""

from __future__ import annotations

import resource
from time import monotonic
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state as stock

from taskapp.probes.health import Status
from taskapp.settings import Settings

logger = get_logger(__name__)

# The stubs lack half of it.
state: Any = stock

EXIT_RECYCLED = 75
"""sysexits.h: temporary failure; start it again."""
LOOK_SECONDS = 1.0
ABANDONED_THREADS_MOST = 4
"""How many threads may hang in tasks that were past their hard limit; Python cannot end them."""


class RecycleCheck:
    """Called at each turn of the loop; counts at each, looks around once a second."""

    def __init__(self, worker: Any, status: Status, settings: Settings) -> None:
        self._worker = worker
        self._status = status
        self._max_tasks = settings.max_tasks_per_node or float("inf")
        self._max_memory_mb = settings.max_memory_mb
        self._look_at = 0.0

    def __call__(self) -> None:
        """Take note of a turn."""
        if self.has_begun_enough():
            self._recycle(f"this node has begun {state.all_total_count[0]} tasks, its limit is {self._max_tasks}")
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        self._status.turn_due_at = now
        self._look(now)

    def has_begun_enough(self) -> bool:
        """Say whether this node is not to claim any more; it drains from the next turn on."""
        return bool(state.all_total_count[0] >= self._max_tasks)

    def _look(self, now: float) -> None:
        find_problem = getattr(self._worker.pool, "problem", None)
        self._status.pool_problem = find_problem() if find_problem is not None else ""
        if not self._status.pool_problem:
            self._status.pool_at = now
        if not self._worker.drain.ends_at:
            self._worker.stop_signals.mend()
        if reason := self._over_memory():
            self._worker.drain.blame()
            self._recycle(reason)
        elif reason := self._hanging():
            self._recycle(reason)

    def _recycle(self, reason: str) -> None:
        if state.should_stop is None:
            logger.warning("%s: draining, to be started anew (exit code %d)", reason, EXIT_RECYCLED)
            state.should_stop = EXIT_RECYCLED

    def _over_memory(self) -> str:
        if self._max_memory_mb and (used_mb := resident_mb()) > self._max_memory_mb:
            return f"this node takes {used_mb:.0f} MiB, its limit is {self._max_memory_mb}"
        return ""

    def _hanging(self) -> str:
        abandoned = getattr(getattr(self._worker.pool, "threads", None), "abandoned", 0)
        if abandoned > ABANDONED_THREADS_MOST:
            return f"{abandoned} threads of this node hang in tasks that were past their time limit"
        return ""


def resident_mb() -> float:
    """Return the memory of this process alone, in MiB; where ``/proc`` is missing, the most it ever took."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - once a second
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
