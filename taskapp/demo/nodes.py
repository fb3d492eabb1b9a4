"""Polls the tasks each node runs, over Celery's remote control, while the demo is drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from taskapp.background import start_thread
from taskapp.celery import app

REPLY_WITHIN_SECONDS = 0.4


class Nodes:
    """Polls in a separate thread, so that a slow reply does not block the drawing."""

    def __init__(self, slots_per_node: int) -> None:
        self._slots = slots_per_node
        self._running: dict[str, int] = {}
        self._stopping = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[Nodes]:
        """Poll during the block."""
        asking = start_thread(self._ask, name="demo-nodes")
        try:
            yield self
        finally:
            self._stopping.set()
            asking.join()

    def busy(self) -> dict[str, tuple[int, int]]:
        """Return running tasks and slots by node, from the last reply."""
        return {name.partition("@")[0]: (running, self._slots) for name, running in sorted(self._running.items())}

    def _ask(self) -> None:
        while not self._stopping.is_set():
            replies = app.control.inspect(timeout=REPLY_WITHIN_SECONDS).active()
            # kombu's Redis transport loses the replies to every other request sent this quickly.
            if replies:
                self._running = {name: len(tasks) for name, tasks in replies.items()}
