"""What is derived from a schedule's name and a due time, the same for everybody who derives it."""

from __future__ import annotations

import uuid
from hashlib import blake2b

_TICKS = uuid.UUID("5ac1d1f5-5a0e-4c37-9c86-6f2d3bb7a3c1")


def tick_id(name: str, due_ms: int) -> str:
    """Return the task id of a schedule's tick: a UUID (version 5) of the name and the due time in Unix ms, UTC."""
    return str(uuid.uuid5(_TICKS, f"{due_ms} {name}"))


def jitter_ms(name: str, due_ms: int, width_ms: int) -> int:
    """Return by how many milliseconds, from 0 to below ``width_ms``, a tick is sent later than it is due.

    Drawn evenly, from the name and the due time alone: another leader draws the same. 0 where the width is none.
    """
    if width_ms <= 0:
        return 0
    drawn = blake2b(f"{due_ms} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") % width_ms
