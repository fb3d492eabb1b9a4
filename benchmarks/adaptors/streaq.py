"""streaQ. Tasks in a stream, acknowledged after the run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from streaq import Worker
from streaq.task import Task, TaskStatus

from benchmarks import tasks
from benchmarks.adaptors import SLOTS, STORE_URL, Call

worker = Worker(redis_url=STORE_URL, concurrency=SLOTS, anyio_kwargs={"use_uvloop": True})
registered = {
    name: worker.task(name=name, ttl=86_400)(getattr(tasks, name + "_async")) for name in ("noop", "stamp", "nap")
}


class Client:
    """Submits with ``await enqueue()``, many with ``enqueue_many()``."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()

    async def open(self) -> None:
        await self.stack.enter_async_context(worker)

    async def close(self) -> None:
        await self.stack.aclose()

    async def submit(self, name: str, *arguments: Any) -> Task[Any, Any]:
        return await registered[name].enqueue(*arguments)

    async def submit_many(self, calls: Sequence[Call]) -> list[Task[Any, Any]]:
        handles = [registered[name].enqueue(*arguments) for name, arguments in calls]
        await worker.enqueue_many(handles)
        return handles

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> Task[Any, Any]:
        return await registered[name].enqueue(*arguments).start(schedule=datetime.fromtimestamp(due_at, UTC))

    async def is_done(self, handle: Task[Any, Any]) -> bool:
        return await handle.status() == TaskStatus.DONE

    async def result(self, handle: Task[Any, Any]) -> Any:
        return (await handle.result(timeout=60)).result


if __name__ == "__main__":
    # The ``streaq`` command would log two lines per task.
    from benchmarks.adaptors import streaq

    streaq.worker.run_sync()
