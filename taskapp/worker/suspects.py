"""What ran when a node came to end by itself: over its memory, or by a signal that one of its tasks sent.

Given back as it is, such a task would end node after node. So it goes back as after a crash: counted, and
later alone. What ends before the node does has shown that it can.
"""

from __future__ import annotations

import os

from celery.worker.state import active_requests

from taskapp.broker.received import Received
from taskapp.broker.suspects import Suspects
from taskapp.worker.side_loop import is_green


def running_in(pid: int) -> Suspects:
    """Return the tasks that run in the process ``pid`` of this node's pool; none: in this process.

    Whoever ran alone at this moment is the one, whatever ends until the node does.
    """
    tags: dict[int | None, list[str]] = {}
    for request in tuple(active_requests):
        if isinstance(request.message, Received) and not request.acknowledged:
            # gevent's pool names the greenlet.
            where = os.getpid() if is_green() else request.worker_pid
            tags.setdefault(where, []).append(request.message.delivery_tag)
    suspects = frozenset(tags.get(pid) or tags.get(os.getpid()) or ())
    return Suspects(suspects, "crashed" if len(suspects) == 1 else "neighbour")
