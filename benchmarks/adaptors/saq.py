"""SAQ. A job moves to a list of active jobs and is swept from there if its worker is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from saq import Job, Queue

from benchmarks import tasks
from benchmarks.adaptors import SLOTS, STORE_URL, Call

PARAMETERS = {"noop": ("number", "padding"), "stamp": (), "nap": ("seconds",)}

queue = Queue.from_url(STORE_URL)


async def noop(_context: Any, *, number: int, padding: str = "") -> int:
    return await tasks.noop_async(number, padding)


async def stamp(_context: Any) -> float:
    return await tasks.stamp_async()


async def nap(_context: Any, *, seconds: float) -> list[float]:
    return await tasks.nap_async(seconds)


settings = {"queue": queue, "functions": [noop, stamp, nap], "concurrency": SLOTS}


class Client:
    """Submits with ``enqueue()``, many of them at the same time."""

    async def open(self) -> None:
        await queue.connect()

    async def close(self) -> None:
        await queue.disconnect()

    async def submit(self, name: str, *arguments: Any) -> Job:
        return await queue.enqueue(name, ttl=86_400, timeout=60, **dict(zip(PARAMETERS[name], arguments, strict=False)))

    async def submit_many(self, calls: Sequence[Call]) -> list[Job]:
        return await asyncio.gather(*(self.submit(name, *arguments) for name, arguments in calls))

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> Job:
        named = dict(zip(PARAMETERS[name], arguments, strict=False))
        return await queue.enqueue(name, ttl=86_400, timeout=60, scheduled=due_at, **named)

    async def is_done(self, handle: Job) -> bool:
        await handle.refresh()
        return handle.completed > 0

    async def result(self, handle: Job) -> Any:
        # refresh(until_complete=60) reads, then subscribes, and waits forever for a job that ended in between.
        while not await self.is_done(handle):
            await asyncio.sleep(0.001)
        return handle.result
