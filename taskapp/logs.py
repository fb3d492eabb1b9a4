"""Logs as text for people or JSON lines for machines, each line with its task's id and type.

Fields given as ``extra=`` keep their names in the record, for other handlers. In a JSON line taskapp's own names take
precedence: an extra field with such a name is written as ``extra_<name>``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Self

from celery import current_task
from celery.app import log as stock
from celery.utils.saferepr import saferepr
from pythonjsonlogger.json import JsonFormatter

from taskapp import tracing
from taskapp.log_message import formattable
from taskapp.sanitize import sanitize_json, sanitize_lines
from taskapp.settings import get_settings

_StockLogging: Any = stock.Logging  # the stubs know half of it
TASK_FIELDS = ("task_id", "task_type", "queue", "attempt")
TRACE_FIELDS = ("trace_id", "span_id")
VALUE_MOST = 1_024
"""Maximum length of the text for a value that JSON cannot represent."""


POOL_LOGGER = "multiprocessing"
"""Name of billiard's logger."""
LINE_FIELDS = {"asctime": "time", "levelname": "level", "name": "logger"}
"""Attributes of records and their names in JSON."""


class Context:
    """Where a record was written, next to the program's own fields; stored in the record by the first handler."""

    __slots__ = ("fields", "given")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        """taskapp's fields by name."""
        self.given: dict[str, Any] = {}
        """The program's own values for the same names."""

    @classmethod
    def of(cls, record: logging.LogRecord) -> Self:
        """Return the context of ``record``, created on first use."""
        context: Self = record.__dict__.setdefault("_taskapp_context", cls())
        return context

    def add(self, record: logging.LogRecord, names: Sequence[str], values: Sequence[Any]) -> None:
        """Add fields to ``record``; an extra field of the same name keeps its value in the record."""
        for name, value in zip(names, values, strict=True):
            self.fields[name] = value
            if name in record.__dict__:
                self.given[name] = record.__dict__[name]
            else:
                record.__dict__[name] = value


class TaskFields(logging.Filter):
    """Adds to each record the task it was written in: id, type, queue and attempt (from 1)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add ``TASK_FIELDS``, which are ``None`` outside a task; always return ``True``."""
        context = Context.of(record)
        if TASK_FIELDS[0] not in context.fields:
            context.add(record, TASK_FIELDS, self._values())
        return True

    @staticmethod
    def _values() -> tuple[Any, ...]:
        task = current_task if current_task else None
        if task is None:
            return (None,) * len(TASK_FIELDS)
        request = task.request
        return request.id, task.name, (request.delivery_info or {}).get("routing_key"), request.retries + 1


class TraceFields(logging.Filter):
    """Adds to each record the trace and the span it was written in."""

    def __init__(self) -> None:
        """Import OpenTelemetry."""
        super().__init__()
        from taskapp.tracing.spans import ids

        self._ids = ids

    def filter(self, record: logging.LogRecord) -> bool:
        """Add ``TRACE_FIELDS``, which are ``None`` outside a span; always return ``True``."""
        context = Context.of(record)
        if TRACE_FIELDS[0] not in context.fields:
            context.add(record, TRACE_FIELDS, self._ids() or (None, None))
        return True


class TextFormatter(logging.Formatter):
    """One line for people, with the task at its end.

    Further lines of a message or traceback are indented, and control characters have no effect on a terminal, so that
    a task cannot forge log lines.
    """

    def __init__(self) -> None:
        """Use the same prefix for workers, beat and everything else."""
        super().__init__("%(asctime)s %(levelname)-7s %(processName)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line, followed by ``[type id queue=… attempt=…]`` if a task wrote it."""
        line = super().formatMessage(record)
        fields = Context.of(record).fields
        if fields.get("task_id") is None:
            return line
        return f"{line} [{fields['task_type']} {fields['task_id']} queue={fields['queue']} attempt={fields['attempt']}]"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; if the message cannot be formatted, a line that says so."""
        try:
            text = super().format(record)
        except Exception as error:  # noqa: BLE001 - raised by the __str__ of a logged value
            text = super().format(formattable(record, error))
        return sanitize_lines(text)


class JSONFormatter(JsonFormatter):
    """One line of JSON in ASCII; taskapp's names take precedence, see the module."""

    def __init__(self, fields: Sequence[str]) -> None:
        """Write ``fields`` in each line, ``None`` if a record lacks them."""
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s " + " ".join(f"%({f})s" for f in fields),
            rename_fields=LINE_FIELDS,
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; if the message cannot be formatted, a line that says so."""
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - raised by the __str__ of a logged value
            return super().format(formattable(record, error))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Fill ``log_data``; a program's field with one of taskapp's names is written as ``extra_<name>``."""
        super().add_fields(log_data, record, message_dict)
        context = Context.of(record)
        lines = {name: getattr(record, attribute) for attribute, name in LINE_FIELDS.items()}
        given = {name: record.__dict__[name] for name in lines if name in record.__dict__} | context.given
        own = {**lines, **context.fields}
        given |= {name: value for name, value in message_dict.items() if name in own}
        log_data |= own
        log_data |= {f"extra_{name}": value for name, value in given.items()}

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return ``log_data`` as JSON, with a text for each value that JSON cannot represent."""
        try:
            text = super().jsonify_log_record(log_data)
        except Exception:  # noqa: BLE001 - keys that are not strings, cycles, errors raised by a value's own code
            text = super().jsonify_log_record({str(name): _writable(value) for name, value in log_data.items()})
        return sanitize_json(text)


def _writable(value: Any) -> Any:
    try:
        json.dumps(value)
    except Exception:  # noqa: BLE001 - the same
        return saferepr(value, VALUE_MOST)
    return value


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter for the setting ``log_format``, ``text`` or ``json``."""
    if log_format == "json":
        fields = (*TASK_FIELDS, *TRACE_FIELDS) if tracing.is_on(get_settings()) else TASK_FIELDS
        return JSONFormatter(fields)
    return TextFormatter()


class Logging(_StockLogging):
    """Sets up the app's loggers like Celery, with taskapp's format. Celery sends its signals afterwards."""

    def setup_handlers(self, logger: logging.Logger, *args: Any, **options: Any) -> logging.Logger:
        """Add handlers to ``logger``, unless it has some, and set their format."""
        super().setup_handlers(logger, *args, **options)
        format_handlers(logger)
        return logger


def format_handlers(logger: logging.Logger) -> None:
    """Make ``logger``, which Celery has set up, use taskapp's format. Level, file and colour options stay Celery's."""
    # Billiard's logger has its own handlers, for which Celery sends no signal.
    for handler in {*logger.handlers, *logging.getLogger(POOL_LOGGER).handlers}:
        handler.setFormatter(formatter(get_settings().log_format))
        handler.addFilter(TaskFields())
        if tracing.is_on(get_settings()):
            handler.addFilter(TraceFields())
