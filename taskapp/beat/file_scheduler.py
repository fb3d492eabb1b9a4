"""Celery's own scheduler, where neither the broker nor the results are in a Redis. Imported by beat alone."""

from __future__ import annotations

import os
import shelve
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from celery import beat, signals
from celery.utils.log import get_logger

from taskapp.beat.probes import watch_beat

# The stubs lack half of it.
_PersistentScheduler: Any = beat.PersistentScheduler


ONE_ONLY = "only one beat may run: a second one would send every task again; a Redis for results lets several run"

logger = get_logger("celery.beat")


class PrivateShelf(shelve.DbfilenameShelf[Any]):
    """The file of schedules, for nobody but the user of this process; in place of the module ``shelve``."""

    @classmethod
    def open(cls, filename: str, *, writeback: bool = False) -> PrivateShelf:
        """Open ``filename``, making it if there is none."""
        with _privately():
            return cls(filename, writeback=writeback)

    def sync(self) -> None:
        """Write what has changed."""
        with _privately():
            super().sync()

    def close(self) -> None:
        """Write what has changed, and close."""
        with _privately():
            super().close()


@contextmanager
def _privately() -> Iterator[None]:
    # Not by a mode: one kind of dbm gives it to its files after it has made them, and makes them again and again.
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


class FileScheduler(_PersistentScheduler):
    """Celery's default scheduler, which says when it is to turn next and whether the broker took what it sent."""

    persistence = PrivateShelf
    turn_due_at = 0.0
    """When it means to look at its schedule again, by the monotonic clock."""
    is_in_touch = True
    """Whether the broker took the last task."""
    is_connecting = False
    """Whether it waits for its broker, as long as that takes; its loop does not turn meanwhile."""

    def setup_schedule(self) -> None:
        """Read the file, and say what it means that there is one."""
        logger.warning("schedules are in a file of this machine; %s (TASKAPP_RESULT_URL)", ONE_ONLY)
        super().setup_schedule()

    @property
    def info(self) -> str:
        """What beat prints as it starts."""
        return f"{super().info}\n    . beats -> {ONE_ONLY}"

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
