"""Confines exits of greenlets that tasks leave behind, on nodes that use gevent.

When a SystemExit or KeyboardInterrupt ends a greenlet, gevent raises it in the main greenlet, which runs the node.
"""

from __future__ import annotations

import sys
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.utils.log import get_logger

logger = get_logger(__name__)


def confine(worker: Any) -> None:
    """Let an exit in a greenlet end only that greenlet, if ``worker`` uses gevent's pool.

    Stop signals, which arrive through handlers, and Celery's own exceptions for stopping a node still work.
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
            "%s in a greenlet left behind by a task; only that greenlet ends", repr(error) if error else kind.__name__,
            extra={"action": "exit_of_greenlet"},
        )  # fmt: skip

    hub.handle_error = handle_error
