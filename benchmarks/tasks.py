"""The tasks that every framework runs, as plain functions; the adaptors register them."""

from __future__ import annotations

import asyncio
import time


def noop(number: int, padding: str = "") -> int:  # noqa: ARG001 - the padding is the payload
    """Return ``number``, so that each result can be told from the others."""
    return number


async def noop_async(number: int, padding: str = "") -> int:  # noqa: ARG001
    return number


def stamp() -> float:
    """Return when it was started, Unix seconds."""
    return time.time()


async def stamp_async() -> float:
    return time.time()


async def nap_async(seconds: float) -> list[float]:
    """Sleep without holding a thread; return when it was started and when it ended, Unix seconds."""
    started_at = time.time()
    await asyncio.sleep(seconds)
    return [started_at, time.time()]


def nap(seconds: float) -> list[float]:
    """Sleep in the place where plain functions run."""
    started_at = time.time()
    time.sleep(seconds)
    return [started_at, time.time()]
