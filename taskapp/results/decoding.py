"""Reading results: what is compressed becomes no larger than a result may be."""

from __future__ import annotations

from typing import Any

from celery.backends import base

from taskapp.broker.unpacking import unpacked
from taskapp.settings import get_settings

# Mixed into two backends of Celery; a common base there would be one too many.
_Mixin: Any = object
_PACKED: bytes = base.COMPRESSED_PAYLOAD_MAGIC  # type: ignore[attr-defined]  # missing in the stubs


class BoundedDecoding(_Mixin):
    """Makes a result backend of Celery unpack results up to a limit."""

    def decode(self, payload: Any) -> Any:
        """Return what ``encode`` was given; a compressed result becomes no more than ``TASKAPP_MAX_UNPACKED_BYTES``.

        Raises:
            CannotUnpack: It would, or is damaged.
            kombu.exceptions.ContentDisallowed: The format is not in ``result_accept_content``.
            kombu.exceptions.DecodeError: It cannot be decoded.
        """
        if isinstance(payload, bytes) and payload.startswith(_PACKED):
            settings = get_settings()
            most_bytes = max(settings.max_unpacked_bytes, settings.max_result_bytes)
            method, _, body = payload[len(_PACKED) :].partition(b"\0")
            payload = unpacked(body, method.decode(errors="replace"), most_bytes)
        return super().decode(payload)
