"""Notes on single tasks, next to their messages and results: progress, retries, log lines, cancellation.

They exist only for tasks that have something to note, and expire with results.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from time import time
from typing import Any, Final, Literal, NamedTuple

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered

LINES_AT_ONCE = 1_000
REVOKED_MOST = 50_000
"""Maximum number of revoked ids; Celery keeps as many per node."""


# First parts of the steps that ``note.lua`` carries out; its header lists what follows each. Runs and history have the
# same letters as in ``settle.lua``.
NOTE_PROGRESS: Final = "P"
NOTE_RETRY: Final = "R"
NOTE_LOG_LINE: Final = "L"
NOTE_RUN: Final = "K"
NOTE_HISTORY: Final = "H"
NOTE_TASK_TYPE: Final = "T"

Step = tuple[Literal["P", "R", "L", "K", "H", "T"], str, bytes]
"""A letter ``NOTE_…``; a task id, or a queue (run), a number to keep (history) or a task type; and a text."""


class Progress(NamedTuple):
    """Progress that a task has reported."""

    done: float
    total: float | None
    note: str
    at: float
    """When it was reported, Unix seconds by its node's clock."""
    attempt: int


class RetryNote(NamedTuple):
    """A run that ended with a retry."""

    at: float
    """When it ended, Unix seconds by its node's clock."""
    attempt: int
    error: str
    node: str


class LogLine(NamedTuple):
    """One log line; it may contain line breaks."""

    position: str
    """Position in the log; increases."""
    at: float
    """When it was written, Unix seconds by its node's clock."""
    level: str
    text: str
    attempt: int


class Noted(NamedTuple):
    """All notes on one task."""

    progress: Progress | None = None
    retries: tuple[RetryNote, ...] = ()
    revoked_at: float | None = None
    """When it was revoked on all nodes, Unix seconds."""
    cancelled_at: float | None = None
    """When its delayed message was deleted, Unix seconds."""
    lines: int = 0
    """Number of log lines kept."""

    @property
    def ran(self) -> bool:
        """Whether it has run, according to its notes."""
        return bool(self.progress or self.retries or self.lines)


class Notes:
    """Reads and writes notes; errors are those of ``Link``.

    Args:
        link: Connection to the Redis where notes are kept.
        prefix: Prefix of every key.
        keep_seconds: How long to keep the notes on a task after the last one; 0: forever.
    """

    def __init__(self, link: Link, prefix: str, keep_seconds: int) -> None:
        self._link = link
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._keep_seconds = keep_seconds

    def read(self, task_id: str) -> Noted:
        """Return the notes on ``task_id``."""
        key, retries, log = (self._keys(name, task_id) for name in ("task", "task_retries", "task_log"))
        fields, texts, lines = all_answered(
            self._link.pipeline([("HGETALL", key), ("LRANGE", retries, 0, -1), ("XLEN", log)])
        )
        known = dict(zip(fields[::2], fields[1::2], strict=True))
        return Noted(
            Progress(**json.loads(known[b"progress"])) if b"progress" in known else None,
            tuple(RetryNote(**json.loads(text)) for text in texts),
            _time(known.get(b"revoked_at")), _time(known.get(b"cancelled_at")), lines,
        )  # fmt: skip

    def lines(
        self, task_id: str, after: str = "-", most: int = LINES_AT_ONCE, wait_seconds: float = 0
    ) -> list[LogLine]:
        """Return log lines of ``task_id``, oldest first.

        Args:
            task_id: Id of the task.
            after: Position of the last known line; ``-``: begin with the first.
            most: Maximum number of lines.
            wait_seconds: How long to wait for a first line; must be less than the connection's timeout.
        """
        key = self._keys("task_log", task_id)
        if not wait_seconds:
            start = after if after == "-" else f"({after}"
            return [_line(*entry) for entry in self._link.command("XRANGE", key, start, "+", "COUNT", most)]
        last = "0" if after == "-" else after
        waiting = ("XREAD", "COUNT", most, "BLOCK", max(int(wait_seconds * 1_000), 1), "STREAMS", key, last)
        streams = self._link.command(*waiting) or []
        return [_line(*entry) for _, entries in streams for entry in entries]

    def write(self, writer: str, number: int, steps: Sequence[Step], lines_most: int) -> None:
        """Write ``steps`` in one call; repeating the same number of the same writer does nothing."""
        parts = chain.from_iterable(steps)
        self._link.run("note", self._prefix, 0, writer, number, self._keep_seconds, lines_most, *parts)

    def revoked(self, task_ids: Sequence[str]) -> None:
        """Record that these tasks are revoked, also for nodes that are not connected now."""
        now, key = time(), self._keys("revoked")
        commands: list[tuple[Any, ...]] = [("ZADD", key, repr(now), task_id) for task_id in task_ids]
        commands.append(("ZREMRANGEBYRANK", key, 0, -REVOKED_MOST - 1))
        if self._keep_seconds:
            commands.append(("ZREMRANGEBYSCORE", key, "-inf", repr(now - self._keep_seconds)))
        all_answered(self._link.pipeline(commands))
        self._stamp("revoked_at", task_ids)

    def revoked_ids(self) -> list[tuple[str, float]]:
        """Return revoked ids with the time of revocation (Unix seconds), for as long as notes are kept."""
        flat = self._link.command("ZRANGE", self._keys("revoked"), 0, -1, "WITHSCORES")
        return [(one.decode(), float(at)) for one, at in zip(flat[::2], flat[1::2], strict=True)]

    def cancelled(self, task_id: str) -> None:
        """Record that a task's delayed message was deleted."""
        self._stamp("cancelled_at", [task_id])

    def _stamp(self, field: str, task_ids: Sequence[str]) -> None:
        commands: list[tuple[Any, ...]] = []
        for task_id in task_ids:
            key = self._keys("task", task_id)
            commands.append(("HSET", key, field, repr(time())))
            if self._keep_seconds:
                commands.append(("EXPIRE", key, self._keep_seconds))
        if commands:
            all_answered(self._link.pipeline(commands))

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


def _line(position: bytes, fields: list[bytes]) -> LogLine:
    known = json.loads(fields[1])
    return LogLine(
        position.decode(), float(known["at"]), str(known["level"]), str(known["text"]), int(known["attempt"])
    )


def _time(text: bytes | None) -> float | None:
    return float(text) if text is not None else None
