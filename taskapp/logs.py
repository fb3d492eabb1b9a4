"""Logs as text for people or JSON lines for machines, each line with its task's id and type."""

from __future__ import annotations

import logging
from typing import Any

from celery import current_task
from celery.signals import after_setup_logger, after_setup_task_logger
from pythonjsonlogger.json import JsonFormatter

from taskapp import tracing
from taskapp.settings import get_settings

TASK_FIELDS = ("task_id", "task_type", "queue", "attempt")
TRACE_FIELDS = ("trace_id", "span_id")


class TaskFields(logging.Filter):
    """Adds to each record the task it was written in: id, type, queue and attempt (from 1)."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the fields of ``TASK_FIELDS``, ``None`` outside a task; lets every record pass."""
        task = current_task if current_task else None
        request = task.request if task is not None else None
        record.task_id = getattr(request, "id", None)
        record.task_type = getattr(task, "name", None)
        record.queue = (getattr(request, "delivery_info", None) or {}).get("routing_key")
        record.attempt = request.retries + 1 if request is not None else None
        return True


class TraceFields(logging.Filter):
    """Adds to each record the trace and the span it was written in."""

    def __init__(self) -> None:
        """Import OpenTelemetry."""
        super().__init__()
        from taskapp.tracing.spans import ids

        self._ids = ids

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the fields of ``TRACE_FIELDS``, ``None`` outside of spans; lets every record pass."""
        record.trace_id, record.span_id = self._ids() or (None, None)
        return True


class TextFormatter(logging.Formatter):
    """One line for people; the task stands at its end."""

    def __init__(self) -> None:
        """Use the same head for workers, beat and everything else."""
        super().__init__("%(asctime)s %(levelname)-7s %(processName)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line, with ``[type id queue=… attempt=…]`` where a task wrote it."""
        line = super().formatMessage(record)
        if getattr(record, "task_id", None) is None:
            return line
        return f"{line} [{record.task_type} {record.task_id} queue={record.queue} attempt={record.attempt}]"  # type: ignore[attr-defined]


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter for the setting ``log_format``."""
    if log_format == "json":
        fields = (*TASK_FIELDS, *TRACE_FIELDS) if tracing.is_on(get_settings()) else TASK_FIELDS
        return JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s " + " ".join(f"%({f})s" for f in fields),
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    return TextFormatter()


def install() -> None:
    """Let every logger Celery sets up write our lines. Celery keeps level, file and colour options."""
    after_setup_logger.connect(_format_handlers, weak=False)
    after_setup_task_logger.connect(_format_handlers, weak=False)


def _format_handlers(logger: logging.Logger, **_: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(formatter(get_settings().log_format))
        handler.addFilter(TaskFields())
        if tracing.is_on(get_settings()):
            handler.addFilter(TraceFields())
