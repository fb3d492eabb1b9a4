"""Limits of one task, as its message carries them; scripts decide with them what may run, see ``lanes.lua``."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

LONGEST_KEY_BYTES = 256
MOST_BYTES = 4_096
"""Maximum size of the limits of one message."""

OnBusy = Literal["wait", "drop", "cancel"]
OnDuplicate = Literal["existing", "raise", "replace", "latest"]
Until = Literal["start", "end", "time"]


class Rate(NamedTuple):
    """At most ``limit`` starts (or units of ``cost``) of one key per ``period_ms``, plus ``burst``."""

    name: str
    """Names the limit: its numbers can be changed under it while nodes run; the task type's name."""
    key: str
    """Value of ``rate_key``; empty: one for all."""
    limit: float
    period_ms: int
    burst: float
    cost: float = 1.0


class Concurrency(NamedTuple):
    """At most ``most`` tasks of one key at once."""

    name: str
    key: str
    most: int
    on_busy: OnBusy = "wait"


class Unique(NamedTuple):
    """At most one task of one key."""

    key: str
    """Task type and value of the key template."""
    until: Until = "end"
    keep_ms: int = 0
    """How long the key is kept, with ``until="time"``."""
    on_duplicate: OnDuplicate = "existing"
    debounce_ms: int = 0
    """How far each call pushes the task back; 0: not at all."""
    longest_ms: int = 0
    """Maximum time it is pushed back after its first call; 0: no maximum."""


class Limits(NamedTuple):
    """Limits of one task."""

    fair_key: str = ""
    """Whose turn it is: tasks of different keys take turns; empty: none."""
    rates: tuple[Rate, ...] = ()
    slots: tuple[Concurrency, ...] = ()
    unique: Unique | None = None


def packed(limits: Limits) -> bytes:
    """Return ``limits`` as scripts read them: MessagePack arrays in the order of the fields."""
    return msgspec.msgpack.encode(limits)
