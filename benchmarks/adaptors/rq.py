"""RQ. A job is listed as started while it runs; one whose worker died is marked as failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job

from benchmarks import tasks
from benchmarks.adaptors import STORE_URL, Call

connection = Redis.from_url(STORE_URL)
queue = Queue(connection=connection)


class Client:
    """Submits with ``enqueue()``, many with ``enqueue_many()``."""

    async def open(self) -> None:
        connection.ping()

    async def close(self) -> None:
        connection.close()

    async def submit(self, name: str, *arguments: Any) -> Job:
        return queue.enqueue(getattr(tasks, name), *arguments)

    async def submit_many(self, calls: Sequence[Call]) -> list[Job]:
        return queue.enqueue_many([Queue.prepare_data(getattr(tasks, name), arguments) for name, arguments in calls])

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> Job:
        return queue.enqueue_at(datetime.fromtimestamp(due_at, UTC), getattr(tasks, name), *arguments)

    async def is_done(self, handle: Job) -> bool:
        return handle.latest_result() is not None

    async def result(self, handle: Job) -> Any:
        found = handle.latest_result(timeout=60)
        return found.return_value
