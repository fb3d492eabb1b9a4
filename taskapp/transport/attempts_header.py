"""The header that keeps the failed attempts of a task with its message: each retry adds the run that asked for it.

run ends with a retry ──► header of the next message ──► claim ──► … ──► task show, history, dead letter
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

ATTEMPTS_HEADER = "taskapp_attempts"
"""Header of a retried task: a list of its last attempts, each as ``[number, Unix seconds, error]``."""
ATTEMPTS_MOST = 10
"""Maximum number of attempts kept, the last ones."""
ERROR_BYTES_MOST = 200


class Attempt(NamedTuple):
    """A run that ended with a retry."""

    number: int
    """From 1."""
    at: float
    """When it ended, Unix seconds by its node's clock."""
    error: str
    """``Type: text``, shortened; of a type that hides arguments only the type; empty: a retry without an error."""

    def __str__(self) -> str:
        at = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return f"attempt {self.number} at {at}: {self.error or 'retried'}"


def attempts_in(headers: Any) -> list[Attempt]:
    """Return the attempts in ``headers``, a mapping or a ``Context``, oldest first, without invalid ones."""
    value = headers.get(ATTEMPTS_HEADER)
    if not isinstance(value, list):
        return []
    return [attempt for each in value[-ATTEMPTS_MOST:] if (attempt := _read(each)) is not None]


def with_attempt(headers: Any, attempt: Attempt) -> list[list[Any]]:
    """Return the value of the header for the message after ``attempt``."""
    kept = attempt._replace(error=shortened(attempt.error))
    return [list(each) for each in (*attempts_in(headers)[1 - ATTEMPTS_MOST :], kept)]


def shortened(text: str) -> str:
    """Return up to ``ERROR_BYTES_MOST`` bytes of ``text``."""
    raw = text.encode(errors="replace")
    return raw.decode() if len(raw) <= ERROR_BYTES_MOST else raw[: ERROR_BYTES_MOST - 3].decode(errors="ignore") + "…"


def _read(each: Any) -> Attempt | None:
    """Return an attempt; ``None`` if it is forged."""
    try:
        number, at, error = each
        datetime.fromtimestamp(at, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    is_sound = isinstance(number, int) and isinstance(error, str) and len(error) <= ERROR_BYTES_MOST
    return Attempt(number, float(at), error) if is_sound else None
