"""File descriptors kept in reserve for a loop that opens some each time it runs.

uvloop creates a pair of sockets on each run and closes it at the end. If it cannot, it can never run again: tasks that
use up all descriptors would end their node. So the call that creates the pair does not fail here: it takes the reserve
and, as long as other threads are faster, waits.
"""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_DUPFD_CLOEXEC, fcntl
from threading import get_ident
from time import sleep
from typing import Any

from celery.utils.log import get_logger

AGAIN_SECONDS = 0.01
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})
"""This process, or the machine, has no free descriptor."""

logger = get_logger(__name__)

_starting: dict[int, SpareDescriptors] = {}
"""The reserve of the loop that is about to run, by thread."""


class SpareDescriptors:
    """As many descriptors as one run of a loop in this thread needs."""

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._held: list[int] = []
        self._is_known = False
        self._source = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if needed else -1
        if needed:
            _wait_instead_of_failing()
        self.refill()

    def run(self, run: Callable[[], object]) -> None:
        """Call ``run``, whose first pair of sockets may have the descriptors; then take them back, if possible."""
        if not self._needed:
            run()
            return
        _starting[get_ident()] = self
        try:
            run()
        finally:
            _starting.pop(get_ident(), None)
            if len(self._held) < self._needed:
                self.refill()

    def make_room(self) -> None:
        """Close what is held; if that is nothing, wait a moment."""
        if self._held:
            self.close_held()
            return
        if not self._is_known:
            self._is_known = True
            logger.error("too many open files: this node goes on when some are closed; raise its limit (ulimit -n)")
        sleep(AGAIN_SECONDS)

    def refill(self) -> None:
        """Take back what was closed, if that is free."""
        with suppress(OSError):
            while len(self._held) < self._needed:
                self._held.append(fcntl(self._source, F_DUPFD_CLOEXEC, 0))
            self._is_known = False

    def close_held(self) -> None:
        """Close all but the one that others are made from."""
        while self._held:
            os.close(self._held.pop())

    def close(self) -> None:
        """Close all."""
        self.close_held()
        if self._source >= 0:
            os.close(self._source)
        self._source, self._needed = -1, 0


def _wait_instead_of_failing() -> None:
    """Replace the function of Python's own module, because uvloop keeps the public one from its import on."""
    usual: Any = _socket.socketpair
    if hasattr(usual, "waits"):
        return

    def socketpair(*args: Any) -> Any:
        spare = _starting.pop(get_ident(), None)
        while True:
            try:
                return usual(*args)
            except OSError as error:
                if spare is None or error.errno not in EXHAUSTED:
                    raise
                spare.make_room()

    socketpair.waits = True  # type: ignore[attr-defined]
    _socket.socketpair = socketpair
