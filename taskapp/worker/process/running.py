"""The tasks a node is running, and which of them may be why it ends: by memory use, or by a signal a task sent.

Requeued normally, such a task would end one node after another. So it is requeued as after a crash: counted, and
later run alone. A task that ends before the node does is no longer a suspect.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from celery.worker.state import active_requests

from taskapp.engine import runtime
from taskapp.execution.side_loop import is_green
from taskapp.transport.message import Received

LOOKS = 10


def runs_something() -> bool:
    """Return whether this worker holds a message, or runs a task that was acknowledged early."""
    return runtime.holds_messages() or len(active_requests) > 0


def running_in(child: int | None, at: float) -> frozenset[str]:
    """Return the delivery tags of running tasks that started at or before ``at`` in one process of this node.

    Thread-safe.

    Args:
        child: Process id of a child process of the pool; ``None`` for this process.
        at: Unix time in seconds.
    """
    where = os.getpid() if child is None else child
    found = set()
    for request in _active():
        if isinstance(request.message, Received) and not request.acknowledged and request.time_start <= at:
            # With gevent's pool, ``worker_pid`` is the id of a greenlet.
            ran_in = os.getpid() if is_green() else request.worker_pid
            if ran_in == where:
                found.add(request.message.delivery_tag)
    return frozenset(found)


def _active() -> tuple[Any, ...]:
    for _ in range(LOOKS):
        with suppress(RuntimeError):  # the loop's thread changed the set during iteration
            return tuple(active_requests)
    return ()
