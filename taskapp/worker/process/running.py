"""What a node runs, and which of it may be why the node ends: over its memory, or by a signal that a task sent.

Given back as it is, such a task would end node after node. So it goes back as after a crash: counted, and
later alone. What ends before the node does has shown that it can.
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
    """Say whether this worker holds a message, or runs a task that was acknowledged early."""
    return runtime.holds_messages() or len(active_requests) > 0


def running_in(child: int | None, at: float) -> frozenset[str]:
    """Return the tags of the tasks that have run in one process of this node since before ``at``, and still do.

    Any thread may ask.

    Args:
        child: The id of a child process of the pool; ``None``: this process.
        at: A Unix time.
    """
    where = os.getpid() if child is None else child
    found = set()
    for request in _active():
        if isinstance(request.message, Received) and not request.acknowledged and request.time_start <= at:
            # gevent's pool names the greenlet.
            ran_in = os.getpid() if is_green() else request.worker_pid
            if ran_in == where:
                found.add(request.message.delivery_tag)
    return frozenset(found)


def _active() -> tuple[Any, ...]:
    for _ in range(LOOKS):
        with suppress(RuntimeError):  # it changed on the loop's thread meanwhile
            return tuple(active_requests)
    return ()
