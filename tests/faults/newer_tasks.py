"""A task type that older workers lack."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from tests.faults.execution_log import logged


@shared_task(name="faults.newcomer", bind=True)
def newcomer(self: Any) -> str:
    """Run and be done. A second run logs a second time."""
    with logged(self.request):
        return "arrived"
