"""What ran when a node came to end by itself: over its memory, or by a signal that one of its tasks sent.

Given back as it is, such a task would end node after node. So it goes back as after a crash: counted, and
later alone. What ends before the node does has shown that it can.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from celery.worker.state import active_requests

from taskapp.broker.received import Received
from taskapp.worker.side_loop import is_green

LOOKS = 10


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
