"""Restores the recursion limit of the interpreter, which all threads share, after a task has lowered it."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger(__name__)

limit = sys.getrecursionlimit()
"""The limit when this process had imported its task types, or started."""


def remember() -> None:
    """Take the current limit for the right one: whatever set it did so before tasks run."""
    global limit
    limit = sys.getrecursionlimit()


def restore() -> bool:
    """Restore the limit if it is lower now; return whether it was. A raised limit stays: a library may rely on it.

    Where this is called often, callers compare the limits themselves.
    """
    lowered = sys.getrecursionlimit()
    if lowered >= limit:
        return False
    sys.setrecursionlimit(limit)
    logger.warning("a task had lowered the recursion limit to %d; the node has restored %d", lowered, limit)
    return True
