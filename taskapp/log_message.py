"""The text of a log record, also of one that cannot be formatted."""

from __future__ import annotations

import copy
import logging

SHOWN_MOST = 200


def message_of(record: logging.LogRecord) -> str:
    """Return the message of ``record``; one that does not fit its arguments is named with its place."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - also from the __str__ of an argument
        return _problem(record, error)


def formattable(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    """Return a copy of ``record``, which could not be formatted for ``error``, with what ``message_of`` says of it."""
    shown = copy.copy(record)
    shown.msg, shown.args = _problem(record, error), None
    return shown


def _problem(record: logging.LogRecord, error: Exception) -> str:
    place = f"{record.pathname}:{record.lineno}"
    return (
        f"log message {_shown(record.msg)} does not take {_shown(record.args)}: {type(error).__name__}: {_text(error)} "
        f"({place})"
    )


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - that may be what was wrong
        return f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN_MOST else f"{text[: SHOWN_MOST - 1]}…"


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the same
        return ""
