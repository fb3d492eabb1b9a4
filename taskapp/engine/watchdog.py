"""Watches over a loop whose thread runs tasks itself and may be blocked by a long one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic, sleep

from taskapp.background import LazyThread, this_process

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.01
RESTS_AFTER_SECONDS = 1.0


class Watchdog:
    """Calls ``look`` a hundred times a second, on a thread of its own, while there is work for it.

    Args:
        look: Does what is due; returns whether there is work left.
    """

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._is_wanted = threading.Event()
        self._thread = LazyThread(self._run, "watch")

    def begin(self) -> None:
        """Start looking. Costs nothing if it is already looking."""
        if not self._is_wanted.is_set():
            self._is_wanted.set()
            self._thread.start()

    def _run(self) -> None:
        seen_at, process = monotonic(), this_process()
        while this_process() is process:  # on gevent the threads of a parent continue in its child
            self._is_wanted.wait()
            sleep(LOOK_SECONDS)
            try:
                if self._look():
                    seen_at = monotonic()
                elif monotonic() > seen_at + RESTS_AFTER_SECONDS:
                    self._is_wanted.clear()
                    if self._look():
                        self._is_wanted.set()
            except Exception:  # nothing restarts this thread
                logger.exception("the watchdog of the loop failed; trying again")
                sleep(RESTS_AFTER_SECONDS)
