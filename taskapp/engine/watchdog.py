"""A second pair of eyes for a loop whose thread runs tasks itself, and may be held by a long one."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from time import monotonic, sleep

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.01
RESTS_AFTER_SECONDS = 1.0


class Watchdog:
    """Looks a hundred times a second, from a thread of its own, as long as there is something to look after.

    Args:
        look: Does what is due; says whether anything is left to look after.
    """

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self._is_wanted = threading.Event()
        self._is_started = False
        self._pid = os.getpid()

    def begin(self) -> None:
        """Look from now on. Costs nothing while it looks already."""
        if not self._is_wanted.is_set():
            self._is_wanted.set()
            if not self._is_started:
                self._is_started = True
                threading.Thread(target=self._run, name="taskapp-watch", daemon=True).start()

    def _run(self) -> None:
        seen_at = monotonic()
        while os.getpid() == self._pid:
            self._is_wanted.wait()
            sleep(LOOK_SECONDS)
            try:
                if self._look():
                    seen_at = monotonic()
                elif monotonic() > seen_at + RESTS_AFTER_SECONDS:
                    self._is_wanted.clear()
                    if self._look():
                        self._is_wanted.set()
            except Exception:  # nobody starts this thread again
                logger.exception("looking after the loop failed; trying again")
                sleep(RESTS_AFTER_SECONDS)
