"""Unpacking of an answer in gzip, chunk by chunk, with a bound."""

from __future__ import annotations

import zlib

MAGIC = b"\x1f\x8b"
MOST_MEMBERS = 1_000
"""Of one answer: an empty one takes 20 bytes, and no more than its beginning tells that there is another."""


class Gunzip:
    """Unpacks the members of a gzip, one behind the other (RFC 1952).

    What stands behind the last is no part of the answer, as for ``gzip`` itself: it is neither kept nor waited for.
    """

    def __init__(self) -> None:
        self.is_over = False
        """Whether something stands behind the last member: nothing more is to be read."""
        self._member: zlib._Decompress | None = zlib.decompressobj(wbits=31)
        self._is_fresh = True
        self._members = 1
        self._held = b""
        """The first byte of what may be another member."""

    @property
    def is_within_a_member(self) -> bool:
        """Whether a member began and did not end; nothing at all is an empty answer."""
        return self._member is not None and not self._is_fresh

    def read(self, chunk: bytes, most: int) -> bytes:
        """Return what ``chunk`` holds, at most ``most`` bytes (1 or more); of more the rest is lost.

        Raises:
            zlib.error: It is no gzip, or broken.
        """
        data, self._held, out = self._held + chunk, b"", bytearray()
        while data and len(out) < most and not self.is_over:
            if self._member is None:
                data = self._begin(data)
                continue
            self._is_fresh = False
            out += self._member.decompress(data, most - len(out))
            if not self._member.eof:
                break
            data, self._member = self._member.unused_data, None
        return bytes(out)

    def _begin(self, data: bytes) -> bytes:
        """Begin another member if ``data`` holds one; return what it is to be given."""
        if not data.startswith(MAGIC[: len(data)]) or self._members >= MOST_MEMBERS:
            self.is_over = True
            return b""
        if len(data) < len(MAGIC):
            self._held = data
            return b""
        self._member, self._members = zlib.decompressobj(wbits=31), self._members + 1
        return data
