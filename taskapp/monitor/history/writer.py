"""Copies finished tasks from the stream in Redis to SQL, each once, through crashes and outages.

A batch is committed to SQL first and then deleted from Redis. If a crash comes in between, the batch is
inserted again and changes nothing: a row's key is the time its task finished and the task's id.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from time import monotonic

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import DataError

from taskapp.engine.completions import Entry, Finished, FinishedTasks
from taskapp.errors import BrokerNotFound
from taskapp.errors.history import HistoryAway
from taskapp.monitor.history.history import DELETED_AT_ONCE, History

logger = logging.getLogger(__name__)

BATCH = 1_000
WAIT_MS = 500
"""How long one read waits for new entries; ``stop`` takes effect after it."""
LEASE_MS = 15_000
"""How long after a writer was killed another takes over."""
AGAIN_SECONDS = 1.0
PRUNE_SECONDS = 60.0
"""How often old tasks are deleted."""
DAY_SECONDS = 86_400.0
AWAY = (RedisError, OSError, OperationalError, BrokerNotFound, HistoryAway)

Lend = Callable[[], AbstractContextManager[FinishedTasks]]


class Writer:
    """Writes until stopped. If several run, only one writes at a time.

    Args:
        history: Where to write.
        lend: Lends the stream.
        days: How long to keep tasks; 0: forever.
    """

    def __init__(self, history: History, lend: Lend, days: float = 0.0) -> None:
        self._history, self._lend, self._days = history, lend, days
        self._name = uuid.uuid4().hex
        self._stopping = threading.Event()
        self._away_since: float | None = None
        self._prune_at = 0.0
        self._is_created = False

    def stop(self) -> None:
        """Stop after the current batch. Safe to call from any thread or a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Write until ``stop``; while Redis or the database is unreachable, wait for it.

        Raises:
            HistoryTooNew: A newer version of taskapp created the tables.
            NoPlaceForEnds: Neither the broker nor the result backend is Redis.
        """
        while not self._stopping.is_set():
            try:
                with self._lend() as finished:
                    self._write_from(finished)
            except AWAY as error:
                self._note_away(error)
                self._stopping.wait(AGAIN_SECONDS)

    def _write_from(self, finished: FinishedTasks) -> None:
        if not self._is_created:
            self._history.create()
            self._is_created = True
        try:
            while not self._stopping.is_set():
                if self._turn(finished):
                    self._note_back()
                else:
                    self._stopping.wait(AGAIN_SECONDS)
        finally:
            with suppress(RedisError):
                finished.resign(self._name)

    def _turn(self, finished: FinishedTasks) -> bool:
        """Write one batch, if there is one; return whether this writer is the leader."""
        if not finished.lead(self._name, LEASE_MS):
            return False
        entries = finished.oldest(BATCH, WAIT_MS)
        unreadable = [entry for entry in entries if entry.finished is None]
        refused = self._write([entry for entry in entries if entry.finished is not None])
        aside = [*unreadable, *refused]
        for entry in aside:
            logger.error("cannot store finished task %r; setting it aside: %.200r", entry.number, entry.raw)
        finished.set_aside(aside)
        finished.forget([entry for entry in entries if entry not in aside] if aside else entries)
        self._prune()
        return True

    def _write(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write ``entries``; return those the database will never accept."""
        try:
            self._history.add(_ends(entries))
        except DataError:
            if len(entries) == 1:
                return list(entries)
            half = len(entries) // 2
            return self._write(entries[:half]) + self._write(entries[half:])
        return []

    def _prune(self) -> None:
        if not self._days or monotonic() < self._prune_at:
            return
        if self._history.prune(self._days * DAY_SECONDS) < DELETED_AT_ONCE:
            self._prune_at = monotonic() + PRUNE_SECONDS

    def _note_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = monotonic()
            logger.warning(
                "cannot write finished tasks to the history: %s; they wait in Redis", error,
                extra={"action": "history_away"},
            )  # fmt: skip

    def _note_back(self) -> None:
        if self._away_since is not None:
            seconds, self._away_since = monotonic() - self._away_since, None
            logger.warning("writing finished tasks again after %.1f s", seconds, extra={"action": "history_back"})


def _ends(entries: Sequence[Entry]) -> list[Finished]:
    return [entry.finished for entry in entries if entry.finished is not None]
