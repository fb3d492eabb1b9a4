"""Learns the ids revoked while a node was not listening: before it started, or while its connection was down.

Celery broadcasts a revoke once, to the nodes that are connected; new nodes ask their neighbours. If there are none,
or none answers within a second, the revoked task would still run.
"""

from __future__ import annotations

from time import monotonic, time
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

logger = get_logger(__name__)

# The stubs are incomplete.
_revoked: Any = worker_state.revoked


class LearnRevoked(bootsteps.StartStopStep):
    """Loads the revoked ids each time a node has connected and is listening."""

    requires = ("celery.worker.consumer.control:Control",)

    def start(self, c: Any) -> None:
        """Add the stored ids to those Celery keeps in memory; if they cannot be read, only neighbours may know."""
        try:
            notes = c.app.open_notes()
            if notes is None:
                return
            known = notes.revoked_ids()
            notes.close()
        except (RedisError, OSError, OperationalError) as error:
            logger.warning("could not read which tasks were revoked while this node was disconnected: %s", error)
            return
        # Celery's times are monotonic.
        began = time() - monotonic()
        _revoked.update({task_id: at - began for task_id, at in known})

    def stop(self, c: Any) -> None:
        """Do nothing: there is nothing to undo."""
