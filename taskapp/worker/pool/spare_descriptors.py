"""File descriptors kept in reserve for a loop that opens some each time it runs.

uvloop creates a pair of sockets on each run and closes it at the end. If they cannot be created, the loop can never run
again: tasks that use up all descriptors would end their node.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from time import sleep

from celery.utils.log import get_logger

AGAIN_SECONDS = 0.01

# Unlike ``os.close``, it keeps the interpreter's lock, so that no other thread opens a file before the loop does.
_close = ctypes.PyDLL(None).close

logger = get_logger(__name__)


class SpareDescriptors:
    """Descriptors that are free for ``needed`` new ones whenever ``release`` has returned. Used by one thread.

    It holds twice as many as needed: threads of tasks may take those that are free between ``release`` and ``refill``.
    """

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._held: list[int] = []
        self._source = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if needed else -1
        """Duplicated: that takes half the time of opening a file, and happens in each turn of the loop."""
        self.refill()

    def release(self) -> None:
        """Close as many as are needed, waiting while too few are held."""
        if len(self._held) < self._needed:
            self._wait_for_enough()
        for _ in range(self._needed):
            _close(self._held.pop())

    def refill(self) -> None:
        """Take back what was closed, if that is free."""
        with suppress(OSError):
            while len(self._held) < 2 * self._needed:
                self._held.append(fcntl(self._source, F_DUPFD_CLOEXEC, 0))

    def close(self) -> None:
        """Close all."""
        for each in (*self._held, *([self._source] if self._source >= 0 else [])):
            os.close(each)
        self._held, self._source = [], -1

    def _wait_for_enough(self) -> None:
        logger.error("too many open files: this node goes on when some are closed; raise its limit (ulimit -n)")
        while len(self._held) < self._needed:
            sleep(AGAIN_SECONDS)
            self.refill()
