"""The header that carries the limits of a task next to its envelope: scripts read the envelope, Python the header.

submit ──► header and envelope ──► claim ──► retry ──► the same header and envelope again
outbox, schedules ──► header of the written message ──► published ──► header and envelope
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

from taskapp.engine.circuits import OF_CIRCUITS
from taskapp.engine.limits import Limits, Rate

LIMITS_HEADER = "taskapp_limits"
"""Header of a task: its limits as its envelope has them, in Base64; empty: it has none, whatever its type declares."""


def as_header(limits: bytes) -> str:
    """Return packed ``limits`` as the value of the header."""
    return b64encode(limits).decode()


def in_header(value: Any) -> bytes:
    """Return the packed limits in the header's ``value``.

    Raises:
        ValueError: It is not Base64.
    """
    if not isinstance(value, str):
        raise ValueError(f"header {LIMITS_HEADER!r} is a {type(value).__name__}, not text")
    return b64decode(value, validate=True)


def is_limited(headers: Mapping[str, Any]) -> bool:
    """Return whether ``headers`` carry limits."""
    return bool(headers.get(LIMITS_HEADER))


def is_rated(headers: Mapping[str, Any]) -> bool:
    """Return whether scripts count starts of a task with these ``headers`` against a rate."""
    return rate_in(headers.get(LIMITS_HEADER)) is not None


def rate_in(value: Any) -> Rate | None:
    """Return the rate in the header's ``value``, not the gate of a circuit breaker; ``None``: there is none."""
    try:
        packed = in_header(value or "")
        rates = _decode(packed).rates if packed else ()
    except (ValueError, msgspec.DecodeError):
        return None  # forged
    return next((rate for rate in rates if not rate.name.startswith(OF_CIRCUITS)), None)


_decode = msgspec.msgpack.Decoder(Limits).decode
