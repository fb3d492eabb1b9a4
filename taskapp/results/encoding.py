"""Encodes results as JSON, like kombu."""

from __future__ import annotations

from collections.abc import Callable
from json import encoder as stock_json
from typing import Any

from celery.utils.saferepr import saferepr
from kombu.exceptions import EncodeError
from kombu.utils.json import JSONEncoder

_encoder: Any = stock_json.c_make_encoder  # type: ignore[attr-defined]  # ``json`` creates one per text
_chunks = _encoder(
    None, JSONEncoder().default, stock_json.encode_basestring_ascii, None, ": ", ", ", False, False, True,  # noqa: FBT003
)  # fmt: skip


def to_json(data: Any) -> str:
    """Encode as kombu does; raise ``RecursionError`` for data that contains itself."""
    return "".join(_chunks(data, 0))


def encoded(encode: Callable[[Any], Any], meta: dict[str, Any], request: Any) -> Any:
    """Return ``encode(meta)``, with texts of the arguments if their task is in a format that represents more.

    Raises:
        kombu.exceptions.EncodeError: Something else cannot be encoded.
    """
    try:
        return encode(meta)
    except EncodeError:
        if "args" not in meta:
            raise
        texts = {name: getattr(request, f"{name}repr", None) or saferepr(meta[name]) for name in ("args", "kwargs")}
        return encode({**meta, **texts})
