"""Logs as text for people or JSON lines for machines, each line with its task's id and type.

What a program gives as ``extra=`` keeps its name in the record, for handlers of others. In a line of JSON the names of
ours are ours: an extra field of such a name is written as ``extra_<name>``.
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
"""Characters of a value that JSON cannot hold."""


POOL_LOGGER = "multiprocessing"
"""Where billiard logs."""
LINE_FIELDS = {"asctime": "time", "levelname": "level", "name": "logger"}
"""Attributes of records and their names in JSON."""


class Context:
    """Where a record was written, beside what the program gave it: kept with the record, whoever writes it first."""

    __slots__ = ("fields", "given")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        """Fields of ours by their names."""
        self.given: dict[str, Any] = {}
        """What the program gave under the same names."""

    @classmethod
    def of(cls, record: logging.LogRecord) -> Self:
        """Return that of ``record``."""
        context: Self = record.__dict__.setdefault("_taskapp_context", cls())
        return context

    def add(self, record: logging.LogRecord, names: Sequence[str], values: Sequence[Any]) -> None:
        """Add fields to ``record``; an extra field of the same name stays what it is there."""
        for name, value in zip(names, values, strict=True):
            self.fields[name] = value
            if name in record.__dict__:
                self.given[name] = record.__dict__[name]
            else:
                record.__dict__[name] = value


class TaskFields(logging.Filter):
    """Adds to each record the task it was written in: id, type, queue and attempt (from 1)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields of ``TASK_FIELDS``, ``None`` outside a task; lets every record pass."""
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
        """Add the fields of ``TRACE_FIELDS``, ``None`` outside of spans; lets every record pass."""
        context = Context.of(record)
        if TRACE_FIELDS[0] not in context.fields:
            context.add(record, TRACE_FIELDS, self._ids() or (None, None))
        return True


class TextFormatter(logging.Formatter):
    """One line for people; the task stands at its end.

    Of a message of several lines, and of a traceback, all but the first are indented, and nothing in it has an effect
    on a terminal: no text of a task passes for a line of somebody else.
    """

    def __init__(self) -> None:
        """Use the same head for workers, beat and everything else."""
        super().__init__("%(asctime)s %(levelname)-7s %(processName)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line, with ``[type id queue=… attempt=…]`` where a task wrote it."""
        line = super().formatMessage(record)
        fields = Context.of(record).fields
        if fields.get("task_id") is None:
            return line
        return f"{line} [{fields['task_type']} {fields['task_id']} queue={fields['queue']} attempt={fields['attempt']}]"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; of a message that cannot be formatted, one that says so."""
        try:
            text = super().format(record)
        except Exception as error:  # noqa: BLE001 - the __str__ of what is logged
            text = super().format(formattable(record, error))
        return sanitize_lines(text)


class JSONFormatter(JsonFormatter):
    """One line of JSON, in ASCII; names of ours are ours in it, see the module."""

    def __init__(self, fields: Sequence[str]) -> None:
        """Write ``fields`` in each line, ``None`` where a record has none."""
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s " + " ".join(f"%({f})s" for f in fields),
            rename_fields=LINE_FIELDS,
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; of a message that cannot be formatted, one that says so."""
        try:
            return super().format(record)
        except Exception as error:  # noqa: BLE001 - the __str__ of what is logged
            return super().format(formattable(record, error))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Fill ``log_data``; what a program calls as we do is written as ``extra_<name>``."""
        super().add_fields(log_data, record, message_dict)
        context = Context.of(record)
        lines = {name: getattr(record, attribute) for attribute, name in LINE_FIELDS.items()}
        given = {name: record.__dict__[name] for name in lines if name in record.__dict__} | context.given
        own = {**lines, **context.fields}
        given |= {name: value for name, value in message_dict.items() if name in own}
        log_data |= own
        log_data |= {f"extra_{name}": value for name, value in given.items()}

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return ``log_data`` as JSON; of a value that cannot be written, its text."""
        try:
            text = super().jsonify_log_record(log_data)
        except Exception:  # noqa: BLE001 - keys that are no texts, circles, whatever the value's own code raises
            text = super().jsonify_log_record({str(name): _writable(value) for name, value in log_data.items()})
        return sanitize_json(text)


def _writable(value: Any) -> Any:
    try:
        json.dumps(value)
    except Exception:  # noqa: BLE001 - the same
        return saferepr(value, VALUE_MOST)
    return value


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter for the setting ``log_format``."""
    if log_format == "json":
        fields = (*TASK_FIELDS, *TRACE_FIELDS) if tracing.is_on(get_settings()) else TASK_FIELDS
        return JSONFormatter(fields)
    return TextFormatter()


class Logging(_StockLogging):
    """Sets up the loggers of our app, as Celery does; they write our lines. Celery's signals come after that."""

    def setup_handlers(self, logger: logging.Logger, *args: Any, **options: Any) -> logging.Logger:
        """Give ``logger`` handlers, unless it has some."""
        super().setup_handlers(logger, *args, **options)
        format_handlers(logger)
        return logger


def format_handlers(logger: logging.Logger) -> None:
    """Let ``logger``, which Celery has set up, write our lines. Celery keeps level, file and colour options."""
    # The pool of processes has a logger of its own with handlers of its own, of which Celery sends no signal.
    for handler in {*logger.handlers, *logging.getLogger(POOL_LOGGER).handlers}:
        handler.setFormatter(formatter(get_settings().log_format))
        handler.addFilter(TaskFields())
        if tracing.is_on(get_settings()):
            handler.addFilter(TraceFields())
