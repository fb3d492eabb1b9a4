"""Records of finished tasks, and the stream that holds them until they are written to the history.

    settle ──► XADD, in the same step ──► stream ──► history writer ──► deleted from the stream

The stream is bounded: records that are not fetched in time are dropped, oldest first, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered

STATES = ("succeeded", "failed", "dead", "cancelled", "ignored")
"""Final states of a task: ``dead`` if its run never finished (crashed, unreadable, unknown, rejected), ``cancelled`` if
it was revoked or expired."""
ASIDE_MOST = 1_000
"""Maximum number of records to keep that cannot be read or stored."""


class Finished(msgspec.Struct, omit_defaults=True, frozen=True):
    """One finished task. Fields that an older node does not send have defaults."""

    finished_us: int
    """End of the task, Unix microseconds by the node's clock; together with ``id`` it identifies the record, so that a
    repeated one is stored once."""
    id: str
    type: str
    queue: str
    state: str
    """One of ``STATES``."""
    priority: int = 0
    node: str = ""
    """Node on which it ended; empty: none."""
    sent_at: float | None = None
    """Unix seconds; ``None``: its message has no such time."""
    started_at: float | None = None
    """Start of its last run, Unix seconds; ``None``: it never ran."""
    run_seconds: float | None = None
    """Duration of its last run."""
    attempts: int = 0
    """Number of runs started, according to its message."""
    args: str = ""
    kwargs: str = ""
    result: str = ""
    error: str = ""
    root_id: str = ""
    parent_id: str = ""
    group_id: str = ""
    schedule: str = ""
    traceback: str = ""

    @property
    def finished_at(self) -> float:
        """End of the task, Unix seconds."""
        return self.finished_us / 1_000_000

    def packed(self) -> bytes:
        """Return the bytes to put into the stream."""
        return _encode(self)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Finished).decode


class Entry(NamedTuple):
    """One record in the stream."""

    number: bytes
    """Its id in the stream."""
    finished: Finished | None
    """The record; ``None``: it cannot be read."""
    raw: bytes


class Backlog(NamedTuple):
    """The stream in numbers."""

    records: int
    """Number of records waiting."""
    dropped: int
    """Number of records dropped since the server's data began, because they were not written in time."""
    aside: int
    """Number of records set aside because they could not be read or stored."""
    oldest_seconds: float
    """Age of the oldest record by the server's clock; 0 if there is none."""


class FinishedTasks:
    """The stream, over a connection of its own, because reading blocks until records arrive.

    Raises (all of its methods):
        NotSent, OutcomeUnknown: The server cannot be reached; every call may be repeated.
        ResponseError: The server refuses.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link, self._prefix = link, prefix
        self._keys = Keys(prefix)

    def oldest(self, count: int, wait_ms: int) -> list[Entry]:
        """Return up to ``count`` entries, oldest first; wait up to ``wait_ms`` for the first one."""
        answer = self._link.command("XREAD", "COUNT", count, "BLOCK", wait_ms, "STREAMS", self._keys("finished"), "0-0")
        entries = answer[0][1] if answer else []
        return [_entry(number, fields) for number, fields in entries]

    def forget(self, entries: Sequence[Entry]) -> None:
        """Delete entries that have been written."""
        if entries:
            self._link.command("XDEL", self._keys("finished"), *[entry.number for entry in entries])

    def set_aside(self, entries: Sequence[Entry]) -> None:
        """Move unusable entries to a list for inspection, which keeps the last ``ASIDE_MOST``."""
        if not entries:
            return
        aside = self._keys("finished_aside")
        all_answered(self._link.pipeline([
            ("LPUSH", aside, *[entry.raw for entry in entries]),
            ("LTRIM", aside, 0, ASIDE_MOST - 1),
            ("HINCRBY", self._keys("counts"), "finished_aside", len(entries)),
            ("XDEL", self._keys("finished"), *[entry.number for entry in entries]),
        ]))  # fmt: skip

    def waiting(self) -> Backlog:
        """Return the number of waiting, dropped and unusable records, and the age of the oldest."""
        length, counts, first, (seconds, _) = all_answered(self._link.pipeline([
            ("XLEN", self._keys("finished")),
            ("HMGET", self._keys("counts"), "finished_dropped", "finished_aside"),
            ("XRANGE", self._keys("finished"), "-", "+", "COUNT", 1),
            ("TIME",),
        ]))  # fmt: skip
        dropped, aside = [int(count or 0) for count in counts]
        # The id of an entry begins with the time at which it was added, in ms.
        added_at = int(first[0][0].split(b"-")[0]) / 1_000 if first else int(seconds)
        return Backlog(int(length), dropped, aside, max(0.0, int(seconds) - added_at))

    def lead(self, name: str, lease_ms: int) -> bool:
        """Try to become, or remain, the only writer for ``lease_ms``; return whether it succeeded.

        Two writers at once do no harm; a single one only saves work.
        """
        key = self._keys("finished_writer")
        if self._link.command("SET", key, name, "NX", "PX", lease_ms):
            return True
        if self._link.command("GET", key) != name.encode():
            return False
        return bool(self._link.command("PEXPIRE", key, lease_ms))

    def resign(self, name: str) -> None:
        """Stop being the writer, so that another can take over at once."""
        if self._link.command("GET", self._keys("finished_writer")) == name.encode():
            self._link.command("DEL", self._keys("finished_writer"))


def _entry(number: bytes, fields: Any) -> Entry:
    raw = fields[1] if fields and len(fields) == 2 else b""
    try:
        return Entry(number, _decode(raw), raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Entry(number, None, raw)
