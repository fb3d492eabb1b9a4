"""Parsing of the times in message headers."""

from __future__ import annotations

from typing import Any

from celery.exceptions import InvalidTaskError
from celery.utils.time import maybe_iso8601, maybe_make_aware


def moment_of(text: Any, app: Any) -> Any:
    """Return the time in ``text`` as an aware datetime; ``None`` for ``None``.

    Raises:
        InvalidTaskError: ``text`` is not a valid time.
    """
    if text is None:
        return None
    try:
        found: Any = maybe_iso8601(text)
        return maybe_make_aware(found, app.conf.timezone)
    except (AttributeError, ValueError, TypeError) as error:
        raise InvalidTaskError(f"invalid expires value {text!r}: {error}") from error
