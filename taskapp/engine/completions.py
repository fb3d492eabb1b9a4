"""What is told of a task when it has ended for good, and the stream in which that waits to be written down.

    settle ──► XADD, in the same step ──► stream ──► whoever writes it down ──► forgotten here

The stream is bounded: what nobody fetched in time falls off its end and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered

STATES = ("succeeded", "failed", "dead", "cancelled", "ignored")
"""How a task can end: ``dead`` without an end of its run (crashed, unreadable, unknown, rejected), ``cancelled`` when
it was revoked or came too late."""
ASIDE_MOST = 1_000
"""How many records are kept that cannot be read or stored."""


class Finished(msgspec.Struct, omit_defaults=True, frozen=True):
    """One task that has ended for good. Fields that an older node does not know have defaults."""

    finished_us: int
    """When, Unix microseconds by the clock of the node; with ``id`` it names the record: told twice, it is one."""
    id: str
    type: str
    queue: str
    state: str
    """One of ``STATES``."""
    priority: int = 0
    node: str = ""
    """Empty: it ended on none."""
    sent_at: float | None = None
    """Unix seconds; ``None``: its message does not say."""
    started_at: float | None = None
    """When its last run began, Unix seconds; ``None``: it never did."""
    run_seconds: float | None = None
    """How long its last run took."""
    attempts: int = 0
    """How many runs of it were begun, as far as its message says."""
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
        """When, Unix seconds."""
        return self.finished_us / 1_000_000

    def packed(self) -> bytes:
        """Return the bytes that wait in the stream."""
        return _encode(self)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Finished).decode


class Entry(NamedTuple):
    """One record in the stream."""

    number: bytes
    """Its id there."""
    finished: Finished | None
    """``None``: it cannot be read."""
    raw: bytes


class Backlog(NamedTuple):
    """The stream in numbers."""

    records: int
    """How many wait to be written down."""
    dropped: int
    """How many fell off since the server has been there: nobody wrote them down in time."""
    aside: int
    """How many were set aside because they could not be read or stored."""
    oldest_seconds: float
    """For how long the first has waited, by the server's clock; 0 if there is none."""


class FinishedTasks:
    """The stream, over one connection of its own: reading waits for the server, and for records.

    Raises (all of its methods):
        NotSent, OutcomeUnknown: The server cannot be reached; everything here may be repeated.
        ResponseError: It refuses.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link, self._prefix = link, prefix
        self._keys = Keys(prefix)

    def oldest(self, count: int, wait_ms: int) -> list[Entry]:
        """Return up to ``count`` entries, the oldest first; waits up to ``wait_ms`` if there is none."""
        answer = self._link.command("XREAD", "COUNT", count, "BLOCK", wait_ms, "STREAMS", self._keys("finished"), "0-0")
        entries = answer[0][1] if answer else []
        return [_entry(number, fields) for number, fields in entries]

    def forget(self, entries: Sequence[Entry]) -> None:
        """Take entries away that are written down."""
        if entries:
            self._link.command("XDEL", self._keys("finished"), *[entry.number for entry in entries])

    def set_aside(self, entries: Sequence[Entry]) -> None:
        """Move entries that are of no use where people may look at them; the last ``ASIDE_MOST`` are kept."""
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
        """Return how many wait, since when, and how many were lost on the way."""
        length, counts, first, (seconds, _) = all_answered(self._link.pipeline([
            ("XLEN", self._keys("finished")),
            ("HMGET", self._keys("counts"), "finished_dropped", "finished_aside"),
            ("XRANGE", self._keys("finished"), "-", "+", "COUNT", 1),
            ("TIME",),
        ]))  # fmt: skip
        dropped, aside = [int(count or 0) for count in counts]
        # The number of an entry begins with the time at which it came, ms.
        told_at = int(first[0][0].split(b"-")[0]) / 1_000 if first else int(seconds)
        return Backlog(int(length), dropped, aside, max(0.0, int(seconds) - told_at))

    def lead(self, name: str, lease_ms: int) -> bool:
        """Ask to be the one that writes down, for ``lease_ms``; say whether that is so.

        Two that write at once do no harm: it only saves the work.
        """
        key = self._keys("finished_writer")
        if self._link.command("SET", key, name, "NX", "PX", lease_ms):
            return True
        if self._link.command("GET", key) != name.encode():
            return False
        return bool(self._link.command("PEXPIRE", key, lease_ms))

    def resign(self, name: str) -> None:
        """Let another lead at once."""
        if self._link.command("GET", self._keys("finished_writer")) == name.encode():
            self._link.command("DEL", self._keys("finished_writer"))


def _entry(number: bytes, fields: Any) -> Entry:
    raw = fields[1] if fields and len(fields) == 2 else b""
    try:
        return Entry(number, _decode(raw), raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Entry(number, None, raw)
