"""The bytes of a task's message that are the same for all tasks of a type with the same options."""

from __future__ import annotations

from typing import Any

import msgspec

from taskapp.engine.envelope import seal
from taskapp.transport.codec import SENT_AT_HEADER

_pack = msgspec.msgpack.Encoder(enc_hook=str).encode

OWN_HEADERS = (
    "id", "root_id", "parent_id", "argsrepr", "kwargsrepr", "eta", "expires", "group", "group_index", SENT_AT_HEADER,
)  # fmt: skip
"""Headers that differ from task to task."""
_FIRST_OF_MANY = 16
"""Number of entries from which a MessagePack mapping has a header of three bytes instead of one."""


class PackedTemplate:
    """Builds the same bytes as ``pack_task`` for a JSON body, but encodes only the parts that differ."""

    def __init__(self, name: str, queue: str, headers: dict[str, Any], *, is_limited: bool) -> None:
        """Pack ``headers``; with ``is_limited``, the own headers end with ``LIMITS_HEADER``."""
        usual = {key: value for key, value in headers.items() if key not in OWN_HEADERS}
        count = len(usual) + len(OWN_HEADERS) + is_limited
        entries = _pack(usual)[1 if len(usual) < _FIRST_OF_MANY else 3 :]
        self._name = name
        self._content = _pack("application/json") + _pack("utf-8") + b"\xde" + count.to_bytes(2, "big") + entries
        self._destination = _pack("") + _pack(queue)

    def fill(
        self, body: str, own: dict[str, Any], priority: int, correlation_id: str | None, reply_to: str | None,
        limits: bytes = b"",
    ) -> bytes:  # fmt: skip
        """Return the message of the task with this body, these ``OWN_HEADERS`` and these packed limits.

        Raises:
            ValueError: The id or the name is longer than 255 bytes.
        """
        # An array of eight; the own headers continue the mapping of the usual ones, without a header byte.
        content = b"\x98%b%b%b%b%b%b" % (
            _pack(body), self._content, _pack(own)[1:], _pack(correlation_id), _pack(reply_to), self._destination,
        )  # fmt: skip
        return seal(own["id"], self._name, priority, content, limits)
