"""The text of a log record, even of one that cannot be formatted."""

from __future__ import annotations

import copy
import logging

SHOWN_MOST = 200


def message_of(record: logging.LogRecord) -> str:
    """Return the message of ``record``; if it does not match its arguments, a description with its location."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - the __str__ of an argument may raise anything
        return _problem(record, error)


def formattable(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    """Return a copy of ``record``, whose formatting raised ``error``, with the text that ``message_of`` returns."""
    shown = copy.copy(record)
    shown.msg, shown.args = _problem(record, error), None
    return shown


def _problem(record: logging.LogRecord, error: Exception) -> str:
    place = f"{record.pathname}:{record.lineno}"
    return (
        f"log message {_shown(record.msg)} does not match {_shown(record.args)}: "
        f"{type(error).__name__}: {_text(error)} ({place})"
    )


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - this may have caused the problem
        return f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN_MOST else f"{text[: SHOWN_MOST - 1]}…"


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the same
        return ""
