"""Timed jobs that write down when they begin and end, in the file that ``TICKING_FILE`` names."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import current_app, shared_task


def note(request: Any, what: str) -> None:
    with Path(os.environ["TICKING_FILE"]).open("a") as file:
        file.write(f"{what} {request.periodic_task_name} {request.id} {request.taskapp_due_at}\n")


@shared_task(bind=True)
def mark(self: Any, seconds: float = 0.0) -> None:
    note(self.request, "begin")
    time.sleep(seconds)
    note(self.request, "end")


@shared_task(bind=True)
async def mark_on_loop(self: Any) -> None:
    note(self.request, "begin")


@shared_task(bind=True, cpu_bound=True)
def mark_in_child(self: Any) -> None:
    note(self.request, "begin")


@shared_task(bind=True, default_retry_delay=0.3, max_retries=1)
def mark_and_retry(self: Any) -> None:
    note(self.request, "begin")
    if self.request.retries == 0:
        raise self.retry()


@shared_task(bind=True, acks_late=False, default_retry_delay=0.3, max_retries=1)
def mark_early(self: Any) -> None:
    note(self.request, "begin")
    if self.request.retries == 0:
        raise self.retry()


@shared_task
def fail() -> None:
    raise ValueError("no")


@shared_task(time_limit=0.5)
def hang() -> None:
    time.sleep(3)


if "TICKING_EVERY" in os.environ:
    current_app.conf.beat_schedule |= {
        "configured": {"task": f"{__name__}.mark", "schedule": float(os.environ["TICKING_EVERY"])}
    }
