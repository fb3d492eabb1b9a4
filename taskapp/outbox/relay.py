"""The relay: queues the rows of an outbox until stopped."""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import Any

from taskapp.errors.outbox import OutboxAway
from taskapp.outbox.pushing import RowPusher
from taskapp.outbox.rows import OutboxStore, PushOutcome

POLL_SECONDS = 1.0
"""How long a relay without work waits before it looks again."""
BACKOFF_SECONDS = 15.0
"""Longest pause while the broker or the database is away."""

logger = logging.getLogger(__name__)


class Relay:
    """Queues rows, oldest first, until stopped. Any number may run on one table.

    Args:
        app: The app whose broker gets the messages.
        store: The table.
        poll_seconds: How often to look for rows that the submitting processes left behind.
    """

    def __init__(self, app: Any, store: OutboxStore, poll_seconds: float = POLL_SECONDS) -> None:
        self._store, self._pusher, self._poll_seconds = store, RowPusher(app), poll_seconds
        self._stopping = threading.Event()
        self._outage = RelayOutage(store.name)

    def stop(self) -> None:
        """Stop after the current rows. Safe to call from any thread or a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Queue rows until ``stop``; while the broker or the database is unreachable, wait for it.

        Raises:
            NoOutboxTable: The database has no table for the outbox.
            UnsupportedOutboxDatabase: Relays cannot work on this database.
        """
        while not self._stopping.is_set():
            self._stopping.wait(self._turn())

    def drain(self) -> int:
        """Queue what waits now and return how many rows that were; stop early if the broker is away.

        Raises:
            OutboxAway, NoOutboxTable, UnsupportedOutboxDatabase: See ``run``.
        """
        count = 0
        while True:
            claimed, outcome = self._store.relay(self._pusher.push)
            count += len(outcome.pushed)
            report_refused(self._store.name, outcome)
            if not claimed or outcome.away is not None:
                return count

    def _turn(self) -> float:
        """Queue some rows; return the seconds to wait before the next turn."""
        try:
            claimed, outcome = self._store.relay(self._pusher.push)
        except OutboxAway as error:
            return self._outage.failed(error)
        report_refused(self._store.name, outcome)
        if outcome.away is not None:
            return self._outage.failed(outcome.away)
        if outcome.pushed:
            self._outage.ended()
        elif not claimed:
            self._outage.ended_if_database()
        return 0.0 if claimed else self._poll_seconds


class RelayOutage:
    """Logs an absence of the broker or the database once at its beginning and once at its end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._since: float | None = None
        self._of_database = False
        self._pause_seconds = POLL_SECONDS

    def failed(self, error: Exception) -> float:
        """Note a failed attempt; return the seconds to wait before the next."""
        if self._since is None:
            self._since = monotonic()
            self._of_database = isinstance(error, OutboxAway)
            logger.error(
                "the rows of the outbox at %s wait: %s; retrying", self._name, error, extra={"action": "outbox_waits"}
            )
        pause_seconds, self._pause_seconds = self._pause_seconds, min(2 * self._pause_seconds, BACKOFF_SECONDS)
        return pause_seconds

    def ended(self) -> None:
        """Note that rows are being queued."""
        if self._since is not None:
            logger.warning(
                "the rows of the outbox at %s are queued again, after %.0f s", self._name, monotonic() - self._since,
                extra={"action": "outbox_continues"},
            )  # fmt: skip
        self._since, self._pause_seconds = None, POLL_SECONDS

    def ended_if_database(self) -> None:
        """Note that the database answers; whether the broker does is unknown as long as no row waits."""
        if self._of_database:
            self.ended()


def report_refused(name: str, outcome: PushOutcome) -> None:
    """Log the rows that can never be pushed."""
    for identity, error in outcome.refused:
        logger.error(
            "task %s stays in the outbox at %s: %s; mend the cause, then run: taskapp outbox retry %s",
            identity, name, error, identity, extra={"action": "outbox_refused"},
        )  # fmt: skip
