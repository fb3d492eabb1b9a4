"""Turns a stored failure into an error that a caller asking for the result can safely get.

A stored failure can name any class. One that would end more than the call (SystemExit,
KeyboardInterrupt, CancelledError), or is not an exception class, is replaced.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import SecurityError

from taskapp.errors import UnreadableFailure

# Mixed into two backends of Celery, which have no useful common base.
_Mixin: Any = object


def may_be_raised(stored: Any) -> Any:
    """Return ``stored``, or ``UnreadableFailure`` if it is an error but not an ``Exception``."""
    if isinstance(stored, BaseException) and not isinstance(stored, Exception):
        return UnreadableFailure(type(stored).__qualname__, str(stored))
    return stored


class Failures(_Mixin):
    """Turns stored failures into errors."""

    def exception_to_python(self, exc: Any) -> Any:
        """Return the error of a stored failure, always an ``Exception``; ``None`` if there is none."""
        try:
            return may_be_raised(super().exception_to_python(exc))
        except (SecurityError, TypeError, ValueError, AttributeError, LookupError) as error:
            name = exc.get("exc_type") if isinstance(exc, dict) else exc
            return UnreadableFailure(str(name)[:200], str(error)[:1_000])
