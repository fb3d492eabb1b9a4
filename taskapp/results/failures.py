"""What a stored failure becomes for who reads it: an error that may be raised where a result is asked for.

Whoever can write results can name any class there. One that would end more than a call (SystemExit,
KeyboardInterrupt, CancelledError), or is no class of errors, does not come out of a result.
"""

from __future__ import annotations

from typing import Any

from celery.exceptions import SecurityError

from taskapp.errors import UnreadableFailure

# Mixed into two backends of Celery; a common base there would be one too many.
_Mixin: Any = object


def may_be_raised(stored: Any) -> Any:
    """Return ``stored``, or in place of an error that is no ``Exception`` one that is."""
    if isinstance(stored, BaseException) and not isinstance(stored, Exception):
        return UnreadableFailure(type(stored).__qualname__, str(stored))
    return stored


class Failures(_Mixin):
    """Makes errors of stored failures."""

    def exception_to_python(self, exc: Any) -> Any:
        """Return the error that a stored failure is, always an ``Exception``; ``None`` of nothing."""
        try:
            return may_be_raised(super().exception_to_python(exc))
        except (SecurityError, TypeError, ValueError, AttributeError, LookupError) as error:
            name = exc.get("exc_type") if isinstance(exc, dict) else exc
            return UnreadableFailure(str(name)[:200], str(error)[:1_000])
