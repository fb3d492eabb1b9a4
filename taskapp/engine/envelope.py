"""The binary header in front of every message, which scripts read without decoding the rest.

    version 1 · priority 1 · deliveries 2 · crashes 2 · length + id · length + task type · message

All numbers are big-endian. taskapp writes version 1, and version 3 for a task with limits, which has two bytes of
length and its packed limits before the message. Version 2 wraps bytes of other programs (kombu's JSON, or anything)
once they have counts to carry. Bytes with none of these are accepted as they are.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from taskapp.engine.limits import MOST_BYTES
from taskapp.queues import HIGHEST_PRIORITY

PLAIN = 1
WRAPPED = 2
LIMITED = 3
OURS = (PLAIN, LIMITED)
"""Versions that taskapp writes; the other one wraps what others have written."""
KNOWN = (*OURS, WRAPPED)
_FIXED = struct.Struct(">BBHH")
_LENGTH = struct.Struct(">H")
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


def seal(message_id: str, task: str, priority: int, body: bytes, limits: bytes = b"") -> bytes:
    """Return ``body`` with a header of version 1, or of version 3 with packed ``limits``.

    Raises:
        ValueError: The id or the name is longer than 255 bytes, the priority is not 0 to 9, or the limits have more
            than 4,096 bytes.
    """
    name, identity = task.encode(), message_id.encode()
    if len(name) > LONGEST_NAME_BYTES or len(identity) > LONGEST_NAME_BYTES:
        long = task if len(name) > LONGEST_NAME_BYTES else message_id
        raise ValueError(f"{long[:40]!r}… is longer than {LONGEST_NAME_BYTES} bytes; choose a shorter name or id")
    if not 0 <= priority <= HIGHEST_PRIORITY:
        raise ValueError(f"priority {priority!r} is not between 0 and 9")
    if not limits:
        return b"%c%c\0\0\0\0%c%b%c%b%b" % (PLAIN, priority, len(identity), identity, len(name), name, body)
    if len(limits) > MOST_BYTES:
        raise ValueError(f"the limits of {task} have {len(limits)} bytes, more than {MOST_BYTES}")
    known = b"%c%b%c%b" % (len(identity), identity, len(name), name)
    return b"%c%c\0\0\0\0%b%b%b%b" % (LIMITED, priority, known, _LENGTH.pack(len(limits)), limits, body)


def unseal(blob: bytes) -> Envelope:
    """Return the parts of ``blob``; without a header, all of it is the body. Never raises."""
    try:
        version, priority, deliveries, crashes = _FIXED.unpack_from(blob)
        if version not in KNOWN or priority > HIGHEST_PRIORITY:
            raise ValueError(version)
        end = 7 + blob[6]
        identity = blob[7:end].decode()
        start = end + 1 + blob[end]
        name = blob[end + 1 : start].decode()
        if version == LIMITED:
            start += _LENGTH.size + _LENGTH.unpack_from(blob, start)[0]
        if start > len(blob):
            raise ValueError(start)
    except (struct.error, ValueError, IndexError):
        return Envelope("", "", 0, 0, 0, blob, 0)
    return Envelope(identity, name, priority, deliveries, crashes, blob[start:], version)


def limits_in(blob: bytes) -> bytes:
    """Return the packed limits of a message that ``unseal`` reads; empty: it has none."""
    if not blob or blob[0] != LIMITED:
        return b""
    end = 7 + blob[6]
    start = end + 1 + blob[end]
    return blob[start + 2 : start + 2 + _LENGTH.unpack_from(blob, start)[0]]


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
