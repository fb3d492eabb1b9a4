"""Keeps the log records of each task for ``taskapp task logs``, in addition to normal logging."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from celery import current_app

from taskapp.app.progress import attempt_of, is_of_a_worker
from taskapp.celery_internals import current_tasks
from taskapp.execution.note_writer import note_writer
from taskapp.log_message import message_of
from taskapp.logs.formatters import TextFormatter
from taskapp.settings import get_settings

LINE_BYTES_MOST = 2_048
OF_THE_WORKER = (
    "celery.app.", "celery.worker", "celery.pool", "celery.concurrency", "celery.bootsteps", "kombu", "taskapp.worker",
    "taskapp.app", "taskapp.execution", "taskapp.probes", "taskapp.results", "taskapp.transport", "taskapp.engine",
    "taskapp.redis",
)  # fmt: skip
"""Loggers that report about tasks, and would otherwise add a line to every run."""
_encode = msgspec.json.Encoder().encode
_traceback_of = TextFormatter().formatException


class TaskLog(logging.Handler):
    """Hands a task's log records to the note writer, without locking or waiting."""

    skips_task_lines = True  # those of OF_THE_WORKER

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep ``record`` if a task logged it; always return ``True``."""
        task = current_tasks.top
        if task is not None and not record.name.startswith(OF_THE_WORKER):
            request = task.request_stack.top
            if is_of_a_worker(request):
                self._keep(record, request)
        return True

    def _keep(self, record: logging.LogRecord, request: Any) -> None:
        try:
            text = message_of(record)
            if record.exc_info:
                text = f"{text}\n{_traceback_of(record.exc_info)}"
            said = {
                "at": record.created, "level": record.levelname, "text": shortened(text),
                "attempt": attempt_of(request),
            }  # fmt: skip
            note_writer().line(request.id, _encode(said))
        except Exception:  # noqa: BLE001 - as in logging itself, a bad record must not fail the task
            self.handleError(record)


def shortened(text: str) -> str:
    """Return ``text`` in up to ``LINE_BYTES_MOST`` bytes; a longer text keeps its beginning and end."""
    raw = text.encode(errors="replace")
    if len(raw) <= LINE_BYTES_MOST:
        return raw.decode()
    half = LINE_BYTES_MOST // 2 - 8
    return f"{raw[:half].decode(errors='ignore')} [...] {raw[-half:].decode(errors='ignore')}"


def install_task_log(**_: Any) -> None:
    """Add the handler to the root logger, and to Celery's task logger, which does not propagate."""
    app: Any = current_app
    if not get_settings().task_log_lines or not app.keeps_notes:
        return
    handler = TaskLog()
    for logger in (logging.getLogger(), logging.getLogger("celery.task")):
        if (logger.parent is None or not logger.propagate) and not any(
            isinstance(each, TaskLog) for each in logger.handlers
        ):
            logger.addHandler(handler)
