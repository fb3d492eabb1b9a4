"""Exits of greenlets that tasks leave behind, in a node on gevent.

gevent raises a SystemExit or KeyboardInterrupt that ends any greenlet in the main one, where the node runs.
"""

from __future__ import annotations

import sys
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils.log import get_logger

logger = get_logger(__name__)


def confine(worker: Any) -> None:
    """Let an exit of a greenlet end that greenlet alone, if the pool of ``worker`` is gevent's.

    Signals to stop come by handlers, and Celery's own exceptions to stop a node still do.
    """
    if not type(worker.pool).__module__.endswith(".gevent"):
        return
    hub = sys.modules["gevent"].get_hub()
    handle = hub.handle_error

    def handle_error(context: Any, kind: Any, error: Any, traceback: Any) -> None:
        is_exit = issubclass(kind, SystemExit | KeyboardInterrupt)
        if context is None or not is_exit or issubclass(kind, WorkerShutdown | WorkerTerminate):
            handle(context, kind, error, traceback)
            return
        logger.error(
            "%s of a greenlet that a task has left; it ends that alone", repr(error) if error else kind.__name__,
            extra={"action": "exit_of_greenlet"},
        )  # fmt: skip

    hub.handle_error = handle_error
