"""What was revoked while a node did not listen: before it started, or while its connection was broken.

Celery tells of a revoke once, to who is there, and new nodes ask their neighbours. Where there was none,
or none answered within a second, a task ran that everybody thought was revoked.
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

# The stubs lack half of it.
_revoked: Any = worker_state.revoked


class LearnRevoked(bootsteps.StartStopStep):
    """Reads what was revoked, each time a node has connected and listens."""

    requires = ("celery.worker.consumer.control:Control",)

    def start(self, c: Any) -> None:
        """Add it to what Celery keeps in memory; where it cannot be read, neighbours may know."""
        try:
            notes = c.app.open_notes()
            if notes is None:
                return
            known = notes.revoked_ids()
            notes.close()
        except (RedisError, OSError, OperationalError) as error:
            logger.warning("what was revoked while this node did not listen is not known: %s", error)
            return
        # Its time is monotonic.
        began = time() - monotonic()
        _revoked.update({task_id: at - began for task_id, at in known})

    def stop(self, c: Any) -> None:
        """Nothing to undo."""
