"""What each node runs, asked over Celery's remote control while the demo is drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from taskapp.celery import app

REPLY_WITHIN_SECONDS = 0.4


class Nodes:
    """Asks in a thread of its own, so that a slow reply does not stop the picture."""

    def __init__(self, slots_per_node: int) -> None:
        self._slots = slots_per_node
        self._running: dict[str, int] = {}
        self._stopping = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[Nodes]:
        """Keep asking for the time of the block."""
        asking = threading.Thread(target=self._ask, daemon=True)
        asking.start()
        try:
            yield self
        finally:
            self._stopping.set()
            asking.join()

    def busy(self) -> dict[str, tuple[int, int]]:
        """Return tasks running and slots by node, of the last reply."""
        return {name.partition("@")[0]: (running, self._slots) for name, running in sorted(self._running.items())}

    def _ask(self) -> None:
        while not self._stopping.is_set():
            replies = app.control.inspect(timeout=REPLY_WITHIN_SECONDS).active()
            # kombu's Redis transport loses the replies to every other question asked this quickly.
            if replies:
                self._running = {name: len(tasks) for name, tasks in replies.items()}
