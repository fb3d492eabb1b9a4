"""A web app's tasks, in ways that can be broken and mended."""

from __future__ import annotations

from pathlib import Path

from taskapp import Backoff, CircuitBreaker, shared_task


@shared_task
def pay(mended: str) -> None:
    """Fail until the file ``mended`` exists."""
    if not Path(mended).exists():
        raise RuntimeError("the bank does not answer")


@shared_task(bind=True, max_retries=None)
def fetch(self, mended: str) -> None:
    """Try again five times a second until the file ``mended`` exists."""
    if not Path(mended).exists():
        raise self.retry(countdown=0.2)


@shared_task(
    circuit_breaker=CircuitBreaker(failures=3, open_for=5),
    retry_on={ConnectionError: Backoff(first=0)},
    max_retries=None,
)
def deliver(mended: str) -> None:
    """Ask for a retry until the file ``mended`` exists; the circuit lets few runs start, so that this is no storm."""
    if not Path(mended).exists():
        raise ConnectionError("the parcel service does not answer")


@shared_task
async def resize(mended: str) -> None:
    """Keep a slot until the file ``mended`` exists."""
    import asyncio

    while not Path(mended).exists():
        await asyncio.sleep(0.1)


@shared_task(max_concurrency=1)
async def call(mended: str) -> None:
    """Keep the only slot until the file ``mended`` exists."""
    await resize.run(mended)
