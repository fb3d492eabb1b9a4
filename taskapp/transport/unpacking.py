"""Unpacks compressed messages and results up to a limit: a kilobyte can expand to gigabytes.

kombu unpacks without a limit. Here the output of every method that kombu knows is bounded while it is
produced, so that a refused body costs no more memory than an accepted one.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from kombu import compression
from kombu.utils.encoding import ensure_bytes

UNPACKED_BYTES_MOST = 32 * 1024 * 1024
"""Default of ``TASKAPP_MAX_UNPACKED_BYTES``."""
LZMA_MEMORY_BYTES = 128 * 1024 * 1024
"""Maximum memory for the dictionary of an LZMA stream; the highest preset needs 65 MiB."""
BROTLI_PIECE_BYTES = 64

Unpack = Callable[[bytes, int], bytes]
"""Returns the unpacked bytes; more than the given maximum means that the limit is exceeded."""


class CannotUnpack(ValueError):
    """A compressed body is damaged, uses an unknown method, or becomes too large."""


def unpacked(body: str | bytes, method: Any, most_bytes: int) -> bytes:
    """Return ``body`` unpacked.

    Args:
        body: A body as ``kombu.compression.compress`` returns it.
        method: Method, by kombu's name or alias.
        most_bytes: Maximum size of the unpacked body.

    Raises:
        CannotUnpack: The error says why, and what to do.
    """
    try:
        own = compression.get_decoder(method)
    except (KeyError, TypeError):
        raise CannotUnpack(f"the compression {method!r} is not installed here") from None
    unpack = _bounded().get(own, lambda data, _: own(data))
    try:
        content = unpack(ensure_bytes(body), most_bytes)
    except CannotUnpack:
        raise
    except Exception as error:
        raise CannotUnpack(f"it cannot be unpacked as {method!r}: {error}") from error
    if len(content) > most_bytes:
        raise CannotUnpack(
            f"it takes more than {most_bytes} bytes when unpacked; send a path or an id instead, "
            "or raise TASKAPP_MAX_UNPACKED_BYTES"
        )
    return bytes(content)


def _bounded() -> dict[Any, Unpack]:
    """Map kombu's decoders to bounded ones. Methods that users have registered are not bounded here."""
    found: dict[Any, Unpack] = {
        zlib.decompress: _by(zlib.decompressobj),
        bz2.decompress: _by(bz2.BZ2Decompressor),
        lzma.decompress: _by(lambda: lzma.LZMADecompressor(memlimit=LZMA_MEMORY_BYTES)),
    }
    zstd: Any = getattr(compression, "zstd", None)
    if zstd is not None:
        found[zstd.decompress] = _by(zstd.ZstdDecompressor)
    brotli: Any = getattr(compression, "brotli", None)
    if brotli is not None:
        found[brotli.decompress] = lambda data, most_bytes: _by_pieces(brotli.Decompressor(), data, most_bytes)
    return found


def _by(make: Callable[[], Any]) -> Unpack:
    def unpack(data: bytes, most_bytes: int) -> bytes:
        stream = make()
        content: bytes = stream.decompress(data, most_bytes + 1)
        if len(content) <= most_bytes and not stream.eof:
            raise CannotUnpack("it ends too early")
        if stream.unused_data:
            raise CannotUnpack("extra data follows its end")
        return content

    return unpack


def _by_pieces(stream: Any, data: bytes, most_bytes: int) -> bytes:
    """Unpack Brotli piece by piece, because not all its versions have a limit: a piece becomes a few blocks at most."""
    pieces, size = [], 0
    for start in range(0, len(data), BROTLI_PIECE_BYTES):
        pieces.append(stream.process(data[start : start + BROTLI_PIECE_BYTES]))
        size += len(pieces[-1])
        if size > most_bytes:
            break
    if size <= most_bytes and not stream.is_finished():
        raise CannotUnpack("it ends too early")
    return b"".join(pieces)
