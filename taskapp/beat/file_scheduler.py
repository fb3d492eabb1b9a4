"""Celery's own scheduler, for deployments with neither broker nor results in Redis. Imported only by beat."""

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

# The stubs are incomplete.
_PersistentScheduler: Any = beat.PersistentScheduler


ONE_ONLY = "only one beat may run: a second one would send every task twice; to run several, keep results in Redis"

logger = get_logger("celery.beat")


class PrivateShelf(shelve.DbfilenameShelf[Any]):
    """The schedule file, readable only by this process's user; used instead of the module ``shelve``."""

    @classmethod
    def open(cls, filename: str, *, writeback: bool = False) -> PrivateShelf:
        """Open ``filename``, creating it if it does not exist."""
        with _privately():
            return cls(filename, writeback=writeback)

    def sync(self) -> None:
        """Write all changes."""
        with _privately():
            super().sync()

    def close(self) -> None:
        """Write all changes and close the file."""
        with _privately():
            super().close()


@contextmanager
def _privately() -> Iterator[None]:
    # A file mode is not enough: one kind of dbm applies it after creating its files, and recreates them repeatedly.
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


class FileScheduler(_PersistentScheduler):
    """Celery's default scheduler, extended to expose its next turn and its contact with the broker to probes."""

    persistence = PrivateShelf
    turn_due_at = 0.0
    """When it will check its schedule again (monotonic)."""
    is_in_touch = True
    """Whether the broker accepted the last task."""
    is_connecting = False
    """Whether it is waiting, without a timeout, for its broker; its loop does not turn then."""

    def setup_schedule(self) -> None:
        """Read the file, and warn that only one beat may run."""
        logger.warning("schedules are kept in a file on this machine; %s (TASKAPP_RESULT_URL)", ONE_ONLY)
        super().setup_schedule()

    @property
    def info(self) -> str:
        """Text for the startup banner."""
        return f"{super().info}\n    . beats -> {ONE_ONLY}"

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Send the tasks that are due; return the seconds until the next check."""
        sleeps_seconds = super().tick(*args, **kwargs)
        self.turn_due_at = monotonic() + (sleeps_seconds or 0.0)
        return sleeps_seconds

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send one task, and note whether the broker accepted it."""
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
