"""Rows of the outbox, and the interface of what stores them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

TABLE = "taskapp_outbox"
CLAIMED_ROWS = 100
"""Maximum number of rows that a relay claims at once."""
CLAIMED_BYTES = 1 << 20
"""Bytes of messages after which a claim is full."""
CLAIM_SECONDS = 30
"""How long rows belong to a relay where they cannot be locked (SQLite); others wait that long if it dies."""
ERROR_MOST = 1_000
"""Maximum length of the error stored with a row, in characters."""


class OutboxRow(NamedTuple):
    """One message of the outbox."""

    id: str
    """Id of its task."""
    created_us: int
    """When it was submitted, Unix microseconds; rows are relayed in this order."""
    task: str
    """Name of the task type."""
    queue: str
    message: str
    """The message in JSON, see ``client.written_messages``."""


class ListedRow(NamedTuple):
    """A row as ``taskapp outbox list`` shows it."""

    id: str
    created_us: int
    task: str
    queue: str
    size: int
    """Characters of the message."""
    is_refused: bool
    attempts: int
    """Number of times the broker refused it."""
    error: str


class PushOutcome(NamedTuple):
    """What happened to the rows of one push."""

    pushed: Sequence[str] = ()
    """Ids of the rows that are queued now."""
    refused: Sequence[tuple[str, str]] = ()
    """Ids of rows that can never be pushed as they are, each with its error."""
    away: Exception | None = None
    """Why other rows were not pushed, if the broker is unreachable or accepts nothing now."""


class OutboxBacklog(NamedTuple):
    """What waits in an outbox."""

    waiting: int
    oldest_seconds: float
    """Age of the oldest waiting row; 0 without one."""
    refused: int


Push = Callable[[Sequence[OutboxRow]], PushOutcome]


class OutboxStore(Protocol):
    """The table of an outbox in one database. Errors of all methods: ``OutboxAway``, ``NoOutboxTable``."""

    @property
    def name(self) -> str:
        """What people call the database, without a password."""

    def close(self) -> None:
        """Release the connection that this thread holds, if any."""

    def relay(self, push: Push, ids: Sequence[str] | None = None) -> tuple[int, PushOutcome]:
        """Claim waiting rows, push them and delete the pushed ones; return the number of claimed rows and the outcome.

        Rows that another relay has claimed are passed over.

        Args:
            push: Pushes rows, oldest first.
            ids: Only these rows, at most ``CLAIMED_ROWS``; ``None``: the oldest.
        """

    def rows(self, *, refused_only: bool, limit: int) -> list[ListedRow]:
        """Return rows, oldest first."""

    def backlog(self) -> OutboxBacklog:
        """Count the rows."""

    def retry(self, ids: Sequence[str] | None) -> int:
        """Let refused rows wait again: these, or all; return how many there were."""

    def remove(self, ids: Sequence[str]) -> int:
        """Delete refused rows; return how many there were."""


_last_us = 0


def now_us() -> int:
    """Return the time in Unix microseconds; each call of a thread returns a later one than the call before."""
    global _last_us
    _last_us = max(time.time_ns() // 1_000, _last_us + 1)
    return _last_us


def parts_of(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ``ids`` in parts that fit into one claim."""
    for start in range(0, len(ids), CLAIMED_ROWS):
        yield ids[start : start + CLAIMED_ROWS]


def cut(sizes: Sequence[tuple[str, int]]) -> list[str]:
    """Return the first ids of ``sizes`` (id, size) up to ``CLAIMED_BYTES``, at least one."""
    taken: list[str] = []
    total = 0
    for identity, size in sizes:
        if taken and total + size > CLAIMED_BYTES:
            break
        taken.append(identity)
        total += size
    return taken
