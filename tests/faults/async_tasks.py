"""The pacing tasks as coroutines; they run on the event loop of taskapp's own pool."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from celery import shared_task

from tests.faults.execution_log import WORKER_VARIABLE, logged


@shared_task(name="faults.note_async", bind=True)
async def note_async(self: Any) -> str:
    """Run and be done. A second run logs a second time."""
    with logged(self.request):
        return "noted"


@shared_task(name="faults.hold_async", bind=True)
async def hold_async(self: Any, seconds: float) -> float:
    """Take ``seconds``. A second run logs a second time."""
    with logged(self.request):
        await asyncio.sleep(seconds)
        return seconds


@shared_task(name="faults.where_async", bind=True)
async def where_async(self: Any, seconds: float) -> str:
    """Take ``seconds`` and return the life of the worker it ran on. A second run logs a second time."""
    with logged(self.request):
        await asyncio.sleep(seconds)
        return os.environ[WORKER_VARIABLE]


@shared_task(name="faults.number_async", bind=True)
async def number_async(self: Any, value: int, seconds: float) -> int:
    """Take ``seconds`` and return ``value``. A second run logs a second time."""
    with logged(self.request):
        await asyncio.sleep(seconds)
        return value
