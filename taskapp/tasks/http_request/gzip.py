"""Decompresses a gzip response chunk by chunk, with a size limit."""

from __future__ import annotations

import zlib

MAGIC = b"\x1f\x8b"
MOST_MEMBERS = 1_000
"""Limit per response: an empty member takes only 20 bytes, and the end of one does not show whether another follows."""


class Gunzip:
    """Decompresses the consecutive members of a gzip stream (RFC 1952).

    Data after the last member is not part of the response, as with ``gzip`` itself; it is neither kept nor awaited.
    """

    def __init__(self) -> None:
        self.is_over = False
        """Whether data after the last member was found; stop reading."""
        self._member: zlib._Decompress | None = zlib.decompressobj(wbits=31)
        self._is_fresh = True
        self._members = 1
        self._held = b""
        """First byte of a possible next member."""

    @property
    def is_within_a_member(self) -> bool:
        """Whether a member has started but not ended; no data at all is an empty response."""
        return self._member is not None and not self._is_fresh

    def read(self, chunk: bytes, most: int) -> bytes:
        """Decompress ``chunk`` and return at most ``most`` bytes (1 or more); discard the rest.

        Raises:
            zlib.error: The data is not gzip, or is corrupt.
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
        """Start the next member if ``data`` begins with one; return the data to decompress."""
        if not data.startswith(MAGIC[: len(data)]) or self._members >= MOST_MEMBERS:
            self.is_over = True
            return b""
        if len(data) < len(MAGIC):
            self._held = data
            return b""
        self._member, self._members = zlib.decompressobj(wbits=31), self._members + 1
        return data
