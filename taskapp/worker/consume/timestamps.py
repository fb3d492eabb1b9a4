"""Times as messages write them."""

from __future__ import annotations

from typing import Any

from celery.exceptions import InvalidTaskError
from celery.utils.time import maybe_iso8601, maybe_make_aware


def moment_of(text: Any, app: Any) -> Any:
    """Return the time ``text`` says, with a zone.

    Raises:
        InvalidTaskError: It says none.
    """
    if text is None:
        return None
    try:
        found: Any = maybe_iso8601(text)
        return maybe_make_aware(found, app.conf.timezone)
    except (AttributeError, ValueError, TypeError) as error:
        raise InvalidTaskError(f"invalid expires value {text!r}: {error}") from error
