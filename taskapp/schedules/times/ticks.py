"""Task id and jitter of a tick, derived from the schedule's name and the due time."""

from __future__ import annotations

import uuid
from hashlib import blake2b

_TICKS = uuid.UUID("5ac1d1f5-5a0e-4c37-9c86-6f2d3bb7a3c1")


def tick_id(name: str, due_ms: int) -> str:
    """Return the task id of a schedule's tick: a UUID (version 5) of the name and the due time in Unix ms, UTC."""
    return str(uuid.uuid5(_TICKS, f"{due_ms} {name}"))


def jitter_ms(name: str, due_ms: int, width_ms: int) -> int:
    """Return the delay of a tick in milliseconds, at least 0 and less than ``width_ms``.

    Uniformly distributed and derived only from name and due time, so that every leader gets the same. 0 if
    ``width_ms`` is 0 or less.
    """
    if width_ms <= 0:
        return 0
    drawn = blake2b(f"{due_ms} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") % width_ms
