"""Encodes results as JSON, like kombu."""

from __future__ import annotations

from json import encoder as stock_json
from typing import Any

from kombu.utils.json import JSONEncoder

_encoder: Any = stock_json.c_make_encoder  # type: ignore[attr-defined]  # ``json`` creates one per text
_chunks = _encoder(
    None, JSONEncoder().default, stock_json.encode_basestring_ascii, None, ": ", ", ", False, False, True,  # noqa: FBT003
)  # fmt: skip


def to_json(data: Any) -> str:
    """Encode as kombu does; raise ``RecursionError`` for data that contains itself."""
    return "".join(_chunks(data, 0))
