"""``taskapp.canary``: a timed job that shows that the path from beat to result works."""

from __future__ import annotations

import logging
import time

from taskapp.tasks.shared.shipped import shipped

logger = logging.getLogger(__name__)


@shipped(name="taskapp.canary", typed=True, soft_time_limit=10, time_limit=15)
def canary() -> float:
    """Return the time of the run in Unix seconds. Running it again returns a later time."""
    logger.info("canary ran", extra={"action": "canary"})
    return time.time()
