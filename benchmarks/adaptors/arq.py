"""arq. A job stays in the queue while it runs; an expiring key tells others that it is running."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job

from benchmarks import tasks
from benchmarks.adaptors import SLOTS, STORE_URL, Call


async def noop(_context: Any, number: int, padding: str = "") -> int:
    return await tasks.noop_async(number, padding)


async def stamp(_context: Any) -> float:
    return await tasks.stamp_async()


async def nap(_context: Any, seconds: float) -> list[float]:
    return await tasks.nap_async(seconds)


class WorkerSettings:
    """Settings that ``arq`` reads."""

    functions = (noop, stamp, nap)
    redis_settings = RedisSettings.from_dsn(STORE_URL)
    max_jobs = SLOTS
    log_results = False


class Client:
    """Submits with ``enqueue_job()``, many of them at the same time."""

    pool: ArqRedis

    async def open(self) -> None:
        self.pool = await create_pool(WorkerSettings.redis_settings)

    async def close(self) -> None:
        await self.pool.aclose()

    async def submit(self, name: str, *arguments: Any) -> Job:
        return await self.pool.enqueue_job(name, *arguments)

    async def submit_many(self, calls: Sequence[Call]) -> list[Job]:
        # Beyond this, each would open a connection.
        handles: list[Job] = []
        for first in range(0, len(calls), 50):
            some = calls[first : first + 50]
            handles += await asyncio.gather(*(self.submit(name, *arguments) for name, arguments in some))
        return handles

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> Job:
        return await self.pool.enqueue_job(name, *arguments, _defer_until=datetime.fromtimestamp(due_at, UTC))

    async def is_done(self, handle: Job) -> bool:
        return await handle.result_info() is not None

    async def result(self, handle: Job) -> Any:
        return await handle.result(timeout=60, poll_delay=0.005)
