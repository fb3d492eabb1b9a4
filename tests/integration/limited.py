"""Task types with limits, as a user writes them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from taskapp import Task, shared_task


@shared_task(unique_key="{order}")
def pay(order: int, amount: int = 0) -> int:
    return amount


@shared_task(unique=True, on_duplicate="raise")
def strict(order: int, amount: int = 0) -> int:
    return amount


@shared_task(unique_key="{order}", on_duplicate="replace")
def replaced(order: int, amount: int = 0) -> int:
    return amount


@shared_task(unique_key="{order}", debounce=1)
def debounced(order: int, amount: int = 0) -> int:
    return amount


@shared_task(bind=True, unique_key="{order}", max_retries=2, default_retry_delay=0)
def stubborn(self: Task, order: int) -> int:
    if self.request.retries < 2:
        raise self.retry()
    return int(self.request.retries)


@shared_task(rate_limit="20/s", rate_burst=1, rate_key="{tenant}")
def rated(tenant: str) -> float:
    return time.time()


@shared_task(rate_limit="1/m", rate_burst=10)
def bursting() -> None: ...


@shared_task(max_concurrency={"{tenant}": 1, "all": 3})
def crowded(tenant: str, seconds: float) -> tuple[float, float]:
    began = time.time()
    time.sleep(seconds)
    return began, time.time()


@shared_task(max_concurrency=1, on_busy="cancel")
async def latest(number: int) -> int:
    import asyncio

    await asyncio.sleep(0.2 if number else 600)
    return number


@shared_task(max_concurrency=1, on_busy="cancel")
async def tidy(log: str, seconds: float) -> None:
    import asyncio

    note(log, "begin")
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.sleep(0.5)
        note(log, "end")


@shared_task(max_concurrency=1, on_busy="cancel")
def busy(log: str, seconds: float) -> None:
    note(log, "begin")
    try:
        time.sleep(seconds)
    finally:
        note(log, "end")


def note(log: str, what: str) -> None:
    with Path(log).open("a") as lines:
        lines.write(f"{what}\n")


@shared_task(fair_key="{tenant}")
def fair(tenant: str, number: int = 0) -> Any:
    return tenant, number
