"""The relay of a node: queues what transactions have left in the outbox that ``TASKAPP_OUTBOX_URL`` names."""

from __future__ import annotations

import threading
from typing import Any

from celery.utils.log import get_logger

from taskapp.background import start_thread
from taskapp.errors import TaskappError
from taskapp.outbox.opening import open_store
from taskapp.outbox.relay import BACKOFF_SECONDS, Relay

logger = get_logger(__name__)


class NodeRelay:
    """Relays on a thread of its own, from ``start`` to ``stop``; whatever goes wrong ends no node.

    Args:
        app: The app of the node.
        url: See ``open_store``.
    """

    def __init__(self, app: Any, url: str) -> None:
        self._app, self._url = app, url
        self._stopping = threading.Event()
        self._relay: Relay | None = None

    def start(self) -> None:
        """Start the thread."""
        start_thread(self._run, name="outbox-relay")

    def stop(self) -> None:
        """Stop after the current rows; does not wait."""
        self._stopping.set()
        if self._relay is not None:
            self._relay.stop()

    def _run(self) -> None:
        last = ""
        while not self._stopping.is_set():
            try:
                store = open_store(self._url)
                self._relay = Relay(self._app, store)
                if not self._stopping.is_set():
                    self._relay.run()
                store.close()
            except TaskappError as error:  # a migration, for example, may still have to run
                if str(error) != last:
                    logger.error("this node relays no outbox: %s", error, extra={"action": "outbox_unusable"})
                last = str(error)
                self._stopping.wait(BACKOFF_SECONDS)
