"""The tasks that every framework runs, as plain functions; the adaptors register them."""

from __future__ import annotations

import asyncio
import time


def noop(number: int, padding: str = "") -> int:  # noqa: ARG001 - the padding is the payload
    """Return ``number``, so that results can be told apart."""
    return number


async def noop_async(number: int, padding: str = "") -> int:  # noqa: ARG001
    return number


def stamp() -> float:
    """Return the start time, Unix seconds."""
    return time.time()


async def stamp_async() -> float:
    return time.time()


async def nap_async(seconds: float) -> list[float]:
    """Sleep without occupying a thread; return the start and end time, Unix seconds."""
    started_at = time.time()
    await asyncio.sleep(seconds)
    return [started_at, time.time()]


def nap(seconds: float) -> list[float]:
    """Sleep where plain functions run."""
    started_at = time.time()
    time.sleep(seconds)
    return [started_at, time.time()]
