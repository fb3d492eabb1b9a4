"""The header that carries the limits of a task where its message has no envelope: in written messages, and in requests.

submit ──► envelope ──► claim ──► header of the request ──► retry ──► the same envelope again
outbox, schedules ──► header of the written message ──► published ──► envelope
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

LIMITS_HEADER = "taskapp_limits"
"""Header of a task: its limits as its envelope has them, in Base64; empty: it has none, whatever its type declares."""


def as_header(limits: bytes) -> str:
    """Return packed ``limits`` as the value of the header."""
    return b64encode(limits).decode()


def taken_from(headers: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return ``headers`` without the header, and the packed limits in it; empty: none.

    Raises:
        ValueError: It is not Base64.
    """
    left = dict(headers)
    return left, in_header(left.pop(LIMITS_HEADER, None))


def is_limited(headers: Mapping[str, Any]) -> bool:
    """Return whether ``headers`` carry limits."""
    return bool(headers.get(LIMITS_HEADER))


def in_header(value: Any) -> bytes:
    """Return the packed limits in the header's ``value``; errors are those of ``taken_from``."""
    if value is None:
        return b""
    if not isinstance(value, str):
        raise ValueError(f"header {LIMITS_HEADER!r} is a {type(value).__name__}, not text")
    return b64decode(value, validate=True)
