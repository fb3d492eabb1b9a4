"""Celery's own scheduler, for brokers other than Redis. Imported by beat alone."""

from __future__ import annotations

from time import monotonic
from typing import Any

from celery import beat, signals

from taskapp.worker.beat_probes import watch_beat

# The stubs lack half of it.
_PersistentScheduler: Any = beat.PersistentScheduler


class FileScheduler(_PersistentScheduler):
    """Celery's default scheduler, which says when it is to turn next and whether the broker took what it sent."""

    turn_due_at = 0.0
    """When it means to look at its schedule again, by the monotonic clock."""
    is_in_touch = True
    """Whether the broker took the last task."""
    is_connecting = False
    """Whether it waits for its broker, as long as that takes; its loop does not turn meanwhile."""

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Do what is due; return in how many seconds to look again."""
        sleeps_seconds = super().tick(*args, **kwargs)
        self.turn_due_at = monotonic() + (sleeps_seconds or 0.0)
        return sleeps_seconds

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send one task."""
        self.is_in_touch = False
        sent = super().apply_async(*args, **kwargs)
        self.is_in_touch = True
        return sent

    def _ensure_connected(self) -> Any:
        self.is_connecting = True
        connection = super()._ensure_connected()
        self.is_connecting = False
        return connection


signals.beat_init.connect(watch_beat)
