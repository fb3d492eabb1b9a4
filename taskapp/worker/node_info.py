"""The node description that a worker sends with each heartbeat."""

from __future__ import annotations

import os
from time import time
from typing import Any

from celery.worker.state import active_requests

from taskapp.worker.pool.pool import TaskPool


class NodeInfo:
    """Builds the description. Called on the heartbeat's thread: only reads values and takes no lock."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._started_at = time()

    def __call__(self) -> dict[str, Any]:
        """Return the fields of ``taskapp.engine.snapshot.NodeSnapshot``."""
        worker = self._worker
        slots, used = _slots(worker)
        return {
            "name": worker.hostname,
            "state": "draining" if worker.drain.ends_at else "running",
            "slots": slots,
            "used": used,
            "queues": sorted(worker.app.amqp.queues.consume_from),
            "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2),
            "started_at": round(self._started_at, 3),
        }


def _slots(worker: Any) -> tuple[dict[str, int], dict[str, int]]:
    pool = getattr(worker, "pool", None)
    if isinstance(pool, TaskPool):
        return dict(pool.limits), {kind: len(calls) for kind, calls in list(pool.calls.items())}
    kind = "thread" if type(pool).__module__.endswith((".thread", ".gevent", ".eventlet")) else "process"
    return {kind: worker.concurrency}, {kind: len(active_requests)}
