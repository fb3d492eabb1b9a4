"""The task types that schedules of the matrix run: each run says which due time of which schedule it is."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import shared_task

from tests.faults.execution_log import LOG_VARIABLE, TICKS_SUFFIX, logged


@shared_task(name="faults.tick", bind=True)
def tick(self: Any, seconds: float) -> float:
    """Take ``seconds``. A second run logs a second time, in both logs."""
    with logged(self.request):
        _write_due(self.request)
        time.sleep(seconds)
        return seconds


def _write_due(request: Any) -> None:
    """Append id, due time (Unix seconds, ``-`` where the beat says none) and schedule, in one write."""
    due_at = getattr(request, "taskapp_due_at", None)
    line = f"{request.id} {'-' if due_at is None else due_at} {getattr(request, 'periodic_task_name', '-')}\n"
    path = os.environ[LOG_VARIABLE] + TICKS_SUFFIX
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
