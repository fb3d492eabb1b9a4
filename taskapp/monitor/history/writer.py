"""Writes finished tasks down: from the stream in Redis into SQL, each once, whatever is killed or away.

A batch is committed first and forgotten in Redis after that. What a kill in between leaves there is
written again, and is there already: the key of a row is when its task finished, and its id.
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
"""How long one question for more waits; a stop is heard after it."""
LEASE_MS = 15_000
"""After so long others take over from one that was killed."""
AGAIN_SECONDS = 1.0
PRUNE_SECONDS = 60.0
"""How often old tasks are looked for."""
DAY_SECONDS = 86_400.0
AWAY = (RedisError, OSError, OperationalError, BrokerNotFound, HistoryAway)

Lend = Callable[[], AbstractContextManager[FinishedTasks]]


class Writer:
    """Writes until it is stopped; of several that run, one at a time.

    Args:
        history: Where to.
        lend: Lends the stream.
        days: How long tasks are kept; 0: for ever.
    """

    def __init__(self, history: History, lend: Lend, days: float = 0.0) -> None:
        self._history, self._lend, self._days = history, lend, days
        self._name = uuid.uuid4().hex
        self._stopping = threading.Event()
        self._away_since: float | None = None
        self._prune_at = 0.0
        self._is_created = False

    def stop(self) -> None:
        """End after the batch at hand; any thread, or a signal handler, may call it."""
        self._stopping.set()

    def run(self) -> None:
        """Write until ``stop``; a Redis or a database that is away is waited for.

        Raises:
            HistoryTooNew, NoPlaceForEnds: It cannot be, and waiting would not help.
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
        """Write one batch, if there is one; say whether this is the one that writes."""
        if not finished.lead(self._name, LEASE_MS):
            return False
        entries = finished.oldest(BATCH, WAIT_MS)
        unreadable = [entry for entry in entries if entry.finished is None]
        refused = self._write([entry for entry in entries if entry.finished is not None])
        aside = [*unreadable, *refused]
        for entry in aside:
            logger.error("finished task %r cannot be kept; it is set aside: %.200r", entry.number, entry.raw)
        finished.set_aside(aside)
        finished.forget([entry for entry in entries if entry not in aside] if aside else entries)
        self._prune()
        return True

    def _write(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write ``entries``; return those the database will never take."""
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
                "finished tasks cannot be written down: %s; they wait in Redis", error,
                extra={"action": "history_away"},
            )  # fmt: skip

    def _note_back(self) -> None:
        if self._away_since is not None:
            seconds, self._away_since = monotonic() - self._away_since, None
            logger.warning("finished tasks are written again after %.1f s", seconds, extra={"action": "history_back"})


def _ends(entries: Sequence[Entry]) -> list[Finished]:
    return [entry.finished for entry in entries if entry.finished is not None]
