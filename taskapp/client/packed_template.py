"""The bytes of a task's message, as far as they are the same for all tasks of a type and its options."""

from __future__ import annotations

from typing import Any

import msgspec

from taskapp.engine.envelope import seal
from taskapp.transport.codec import SENT_AT_HEADER

_pack = msgspec.msgpack.Encoder(enc_hook=str).encode

OWN_HEADERS = (
    "id", "root_id", "parent_id", "argsrepr", "kwargsrepr", "eta", "expires", "group", "group_index", SENT_AT_HEADER,
)  # fmt: skip
"""Those in which one task differs from the next."""
_FIRST_OF_MANY = 16
"""A mapping with fewer entries has a header of one byte in MessagePack, and one of three above."""


class PackedTemplate:
    """Makes what ``pack_task`` makes, for a body in JSON: only what differs is encoded."""

    def __init__(self, name: str, queue: str, headers: dict[str, Any]) -> None:
        usual = {key: value for key, value in headers.items() if key not in OWN_HEADERS}
        count = len(usual) + len(OWN_HEADERS)
        entries = _pack(usual)[1 if len(usual) < _FIRST_OF_MANY else 3 :]
        self._name = name
        self._content = _pack("application/json") + _pack("utf-8") + b"\xde" + count.to_bytes(2, "big") + entries
        self._destination = _pack("") + _pack(queue)

    def fill(
        self, body: str, own: dict[str, Any], priority: int, correlation_id: str | None, reply_to: str | None
    ) -> bytes:
        """Return the message of the task with this body and these ``OWN_HEADERS``.

        Raises:
            ValueError: The id or the name takes more than 255 bytes.
        """
        # An array of eight; the mapping goes on where the usual headers end, without a header of its own.
        content = b"\x98%b%b%b%b%b%b" % (
            _pack(body), self._content, _pack(own)[1:], _pack(correlation_id), _pack(reply_to), self._destination,
        )  # fmt: skip
        return seal(own["id"], self._name, priority, content)
