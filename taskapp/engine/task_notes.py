"""Notes on single tasks, beside their messages and results: progress, retries, log lines, that they were cancelled.

Only of tasks of which there is something to note; all of it expires with results.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from time import time
from typing import Any, Literal, NamedTuple

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered

LINES_AT_ONCE = 1_000
REVOKED_MOST = 50_000
"""As many as a node of Celery keeps in mind."""

Step = tuple[Literal["P", "R", "L", "K", "H", "T"], str, bytes]
"""What is noted, of which task (``K``: queue; ``H``: how many are kept; ``T``: a task type), and what: ``note.lua``."""


class Progress(NamedTuple):
    """How far a task says it is."""

    done: float
    total: float | None
    note: str
    at: float
    """When it said so, Unix seconds by its node's clock."""
    attempt: int


class RetryNote(NamedTuple):
    """A run that asked for another."""

    at: float
    """When, Unix seconds by its node's clock."""
    attempt: int
    error: str
    node: str


class LogLine(NamedTuple):
    """One log line; it may hold line breaks."""

    position: str
    """Where it stands in the log; grows."""
    at: float
    """When it was written, Unix seconds by its node's clock."""
    level: str
    text: str
    attempt: int


class Noted(NamedTuple):
    """What is noted of one task."""

    progress: Progress | None = None
    retries: tuple[RetryNote, ...] = ()
    revoked_at: float | None = None
    """When all nodes were told not to run it, Unix seconds."""
    cancelled_at: float | None = None
    """When its delayed message was taken away, Unix seconds."""
    lines: int = 0
    """How many log lines are kept."""

    @property
    def ran(self) -> bool:
        """Whether it has run, by what is noted."""
        return bool(self.progress or self.retries or self.lines)


class Notes:
    """Reads and writes notes.

    Args:
        link: To the Redis where notes are kept.
        prefix: Before every key.
        keep_seconds: How long they are kept after the last word on a task; 0: for ever.
    """

    def __init__(self, link: Link, prefix: str, keep_seconds: int) -> None:
        self._link = link
        self._prefix = prefix
        self._keys = Keys(prefix)
        self._keep_seconds = keep_seconds

    def read(self, task_id: str) -> Noted:
        """Return what is noted of ``task_id``."""
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
        """Return log lines of ``task_id``, the first first.

        Args:
            task_id: Whose.
            after: Position of the last line that is known.
            most: How many at once.
            wait_seconds: How long to wait for one if there is none yet; less than connections wait for an answer.
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
        """Write ``steps`` down in one call; the same number again of the same writer does nothing."""
        parts = chain.from_iterable(steps)
        self._link.run("note", self._prefix, 0, writer, number, self._keep_seconds, lines_most, *parts)

    def revoked(self, task_ids: Sequence[str]) -> None:
        """Note that nodes are told not to run these tasks; kept for nodes that do not listen now."""
        now, key = time(), self._keys("revoked")
        commands: list[tuple[Any, ...]] = [("ZADD", key, repr(now), task_id) for task_id in task_ids]
        commands.append(("ZREMRANGEBYRANK", key, 0, -REVOKED_MOST - 1))
        if self._keep_seconds:
            commands.append(("ZREMRANGEBYSCORE", key, "-inf", repr(now - self._keep_seconds)))
        all_answered(self._link.pipeline(commands))
        self._stamp("revoked_at", task_ids)

    def revoked_ids(self) -> list[tuple[str, float]]:
        """Return what was revoked, and when (Unix seconds): as far back as notes are kept."""
        flat = self._link.command("ZRANGE", self._keys("revoked"), 0, -1, "WITHSCORES")
        return [(one.decode(), float(at)) for one, at in zip(flat[::2], flat[1::2], strict=True)]

    def cancelled(self, task_id: str) -> None:
        """Note that a task's delayed message was taken away."""
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
        """Let go of the connection."""
        self._link.close()


def _line(position: bytes, fields: list[bytes]) -> LogLine:
    known = json.loads(fields[1])
    return LogLine(
        position.decode(), float(known["at"]), str(known["level"]), str(known["text"]), int(known["attempt"])
    )


def _time(text: bytes | None) -> float | None:
    return float(text) if text is not None else None
