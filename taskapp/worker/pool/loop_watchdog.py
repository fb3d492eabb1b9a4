"""Reports tasks that block the event loop: a coroutine that computes or waits without ``await`` stops all others."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic

from celery.utils.log import get_logger

from taskapp.background import start_thread
from taskapp.engine.wakeups import Wakeups

logger = get_logger(__name__)

LOOK_SECONDS = 0.25
PATIENCE_SECONDS = 1.0
"""How late the loop may be before it is reported."""
REMEDY = "; use await for its waits, or make it a plain def, with cpu_bound=True if it computes"


class LoopWatchdog:
    """Watches a loop from its own thread.

    Args:
        loop: The event loop to watch.
        turned_at: Returns when the loop last took a turn (monotonic seconds).
        turn_seconds: Maximum time between two turns of a loop that is not blocked.
        name_of: Returns a description of the task that an asyncio task runs.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        turned_at: Callable[[], float],
        turn_seconds: float,
        name_of: Callable[[object], str],
    ) -> None:
        self._loop = loop
        self._turned_at = turned_at
        self._late_seconds = turn_seconds + PATIENCE_SECONDS
        self._name_of = name_of
        self._over = threading.Event()
        self._loop_thread = threading.get_ident()

    def start(self) -> None:
        """Start watching; called on the loop's thread."""
        start_thread(self._run, name="blocked-loop")

    def stop(self) -> None:
        """Stop watching."""
        self._over.set()

    def _run(self) -> None:
        wakeups = Wakeups()
        wakeups.expect(LOOK_SECONDS)
        while not self._over.wait(LOOK_SECONDS):
            since = self._turned_at()
            if not wakeups.is_late() and monotonic() - since > self._late_seconds:
                blocker = self._report(since)
                while self._turned_at() == since:
                    if self._over.wait(LOOK_SECONDS):
                        return
                logger.warning(
                    "the event loop continues after being blocked for %.1f s by %s", self._turned_at() - since, blocker,
                    extra={"action": "loop_goes_on"},
                )  # fmt: skip
            wakeups.expect(LOOK_SECONDS)

    def _report(self, since: float) -> str:
        running = asyncio.tasks._current_tasks.get(self._loop)  # type: ignore[attr-defined]  # no other way from outside
        blocker = self._name_of(running)
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)[-12:]) if frame is not None else ""
        remedy = REMEDY if running is not None else ""
        logger.warning(
            "the event loop has been blocked for %.1f s by %s%s%s",
            monotonic() - since, blocker, remedy, f":\n{stack}" if stack else "", extra={"action": "loop_blocked"},
        )  # fmt: skip
        return blocker
