"""Relays rows as soon as their transaction has committed, in the submitting process and on a background thread.

Only an attempt: a commit neither waits for it nor fails with it. What it leaves behind waits for a ``Relay``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from queue import Empty, Full, Queue
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from taskapp.background import LazyThread, PerProcess
from taskapp.errors import TaskappError
from taskapp.outbox.pushing import RowPusher
from taskapp.outbox.relay import report_refused
from taskapp.outbox.rows import CLAIMED_ROWS, OutboxStore, PushOutcome, parts_of

JOBS_MOST = 1_000
"""Maximum number of commits waiting for the thread; later ones wait for a relay."""
PAUSE_SECONDS = 5.0
"""How long no attempt is made after one that failed."""

logger = logging.getLogger(__name__)


class Commit(NamedTuple):
    """Rows that were committed together."""

    app: Any
    store: OutboxStore
    ids: Sequence[str]


class PromptRelay:
    """The thread, and what it knows of absent brokers."""

    def __init__(self) -> None:
        self._commits: Queue[Commit] = Queue(JOBS_MOST)
        self._thread = LazyThread(self._run, "outbox")
        self._pushers: WeakKeyDictionary[Any, RowPusher] = WeakKeyDictionary()
        self.is_inline = False
        """Whether ``note`` relays before it returns, on its caller's thread: in tests that need no server."""
        self._failed_at: float | None = None

    def note(self, commit: Commit) -> None:
        """Relay the rows of ``commit`` soon, unless an attempt has just failed. Does not wait or raise."""
        if self.is_paused:
            return
        if self.is_inline:
            self._relay([commit])
            return
        try:
            self._commits.put_nowait(commit)
            self._thread.start()
        except (Full, RuntimeError):  # no thread starts while the interpreter ends
            logger.debug("rows %s wait for a relay of the outbox", commit.ids)

    @property
    def is_paused(self) -> bool:
        """Whether an attempt failed a moment ago."""
        return self._failed_at is not None and monotonic() < self._failed_at + PAUSE_SECONDS

    def pusher(self, app: Any) -> RowPusher:
        """Return the pusher of ``app``; another one if the app gets another submitter, as in tests."""
        return self._pushers.setdefault(app.submitter, RowPusher(app))

    def succeeded(self) -> None:
        """Note that rows were queued."""
        if self._failed_at is not None:
            logger.warning("rows of the outbox are queued right after their commit again")
        self._failed_at = None

    def failed(self, error: object) -> None:
        """Note that an attempt failed; logged once until one succeeds."""
        if self._failed_at is None:
            logger.warning(
                "committed rows of the outbox wait for a relay (taskapp outbox run): %s", error,
                extra={"action": "outbox_waits"},
            )  # fmt: skip
        self._failed_at = monotonic()

    # --- on the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            first = self._commits.get()
            together = [first]
            while sum(len(commit.ids) for commit in together) < CLAIMED_ROWS:
                try:
                    together.append(self._commits.get_nowait())
                except Empty:
                    break
            by_place: dict[tuple[int, str], list[Commit]] = {}
            for commit in together:
                by_place.setdefault((id(commit.app), commit.store.name), []).append(commit)
            for commits in by_place.values():
                self._relay(commits)
            if self._commits.empty():
                for commit in together:
                    commit.store.close()

    def _relay(self, commits: Sequence[Commit]) -> None:
        app, store = commits[0].app, commits[0].store
        ids = [identity for commit in commits for identity in commit.ids]
        for part in parts_of(ids):
            claimed = 1
            while claimed and not self.is_paused:  # a claim ends with a number of bytes, too
                claimed = self._relay_part(app, store, part)

    def _relay_part(self, app: Any, store: OutboxStore, ids: Sequence[str]) -> int:
        try:
            claimed, outcome = store.relay(self.pusher(app).push, ids)
        except TaskappError as error:
            self.failed(error)
            return 0
        except Exception as error:  # noqa: BLE001 - the user's pool or driver may raise anything
            self.failed(f"{type(error).__name__}: {error}")
            return 0
        self.report(store, outcome)
        return claimed

    def report(self, store: OutboxStore, outcome: PushOutcome) -> None:
        """Log what the outcome of an attempt calls for."""
        report_refused(store.name, outcome)
        if outcome.away is not None:
            self.failed(outcome.away)
        elif outcome.pushed:
            self.succeeded()


promptly = PerProcess(PromptRelay)
"""Returns the prompt relay of this process."""
