"""Limits of queues set while nodes run: how many messages may wait, whatever the settings of producers say."""

from __future__ import annotations

import json
from collections.abc import Mapping

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link

NO_LIMIT = 0


class QueueLimits:
    """The limits of one deployment; errors are those of ``Link``."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link, self._prefix = link, prefix

    def read(self) -> dict[str, int]:
        """Return the limits that are set, by queue; ``NO_LIMIT`` lifts the one of the settings."""
        text = self._link.command("HGET", Keys(self._prefix)("clock"), "queue_limits")
        return {queue: int(limit) for queue, limit in json.loads(text).items()} if text else {}

    def in_force(self, declared: Mapping[str, int]) -> dict[str, int]:
        """Return the limits that submits are held to, by queue; ``declared`` are those of the settings."""
        limits = {**declared, **self.read()}
        return {queue: limit for queue, limit in limits.items() if limit != NO_LIMIT}

    def set(self, queue: str, limit: int) -> None:
        """Let at most ``limit`` messages wait in ``queue``; ``NO_LIMIT``: any number."""
        self._link.run("limit_queue", self._prefix, 0, queue, limit)

    def clear(self, queue: str) -> bool:
        """Let the settings decide again; return whether a limit was set."""
        return bool(self._link.run("limit_queue", self._prefix, 0, queue, ""))
