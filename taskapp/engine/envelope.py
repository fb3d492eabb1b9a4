"""The binary header in front of every message, which scripts read without decoding the rest.

    version 1 · priority 1 · deliveries 2 · crashes 2 · length + id · length + task type · message

All numbers are big-endian. taskapp writes version 1; version 2 wraps bytes of other programs
(kombu's JSON, or anything) once they have counts to carry. Bytes with neither are accepted as they are.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from taskapp.queues import HIGHEST_PRIORITY

OURS = 1
WRAPPED = 2
_FIXED = struct.Struct(">BBHH")
LONGEST_NAME_BYTES = 255


class Envelope(NamedTuple):
    """A message as stored in Redis."""

    id: str
    task: str
    """Name of the task type; empty if only ``body`` contains it."""
    priority: int
    deliveries: int
    """How often it was claimed and returned to its queue."""
    crashes: int
    """Number of its runs during which the process died."""
    body: bytes
    version: int
    """0: no header."""


def seal(message_id: str, task: str, priority: int, body: bytes) -> bytes:
    """Return ``body`` with a header of version 1.

    Raises:
        ValueError: The id or the name is longer than 255 bytes, or the priority is not 0 to 9.
    """
    name, identity = task.encode(), message_id.encode()
    if len(name) > LONGEST_NAME_BYTES or len(identity) > LONGEST_NAME_BYTES:
        long = task if len(name) > LONGEST_NAME_BYTES else message_id
        raise ValueError(f"{long[:40]!r}… is longer than {LONGEST_NAME_BYTES} bytes; choose a shorter name or id")
    if not 0 <= priority <= HIGHEST_PRIORITY:
        raise ValueError(f"priority {priority!r} is not between 0 and 9")
    return b"%c%c\0\0\0\0%c%b%c%b%b" % (OURS, priority, len(identity), identity, len(name), name, body)


def unseal(blob: bytes) -> Envelope:
    """Return the parts of ``blob``; without a header, all of it is the body. Never raises."""
    try:
        version, priority, deliveries, crashes = _FIXED.unpack_from(blob)
        if version not in (OURS, WRAPPED) or priority > HIGHEST_PRIORITY:
            raise ValueError(version)
        end = 7 + blob[6]
        identity = blob[7:end].decode()
        start = end + 1 + blob[end]
        name = blob[end + 1 : start].decode()
        if start > len(blob):
            raise ValueError(start)
    except (struct.error, ValueError, IndexError):
        return Envelope("", "", 0, 0, 0, blob, 0)
    return Envelope(identity, name, priority, deliveries, crashes, blob[start:], version)


def named_in_json(body: bytes) -> tuple[str, str]:
    """Return the id and the task type of a kombu message; empty strings if it cannot be read.

    Messages of Celery's protocol 1 have them in their body, which is read if it is JSON or MessagePack.
    """
    try:
        message = json.loads(body)
        named = message["headers"]
        if "task" not in named:
            named = _fields(message)
        return str(named.get("id") or ""), str(named.get("task") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""


def _fields(message: Any) -> Any:
    content = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        content = b64decode(content)
    is_packed = message["content-type"] == "application/x-msgpack"
    return msgspec.msgpack.decode(content) if is_packed else json.loads(content)


def due_again(blob: bytes, due_at: float) -> bytes:
    """Return a message of stock Celery with another due time in its headers, Unix seconds; nodes obey that.

    A message that cannot be read is returned as it is.
    """
    body = unseal(blob).body
    try:
        message = json.loads(body)
        message["headers"]["eta"] = datetime.fromtimestamp(due_at, UTC).isoformat()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return blob
    return blob.removesuffix(body) + json.dumps(message).encode()
