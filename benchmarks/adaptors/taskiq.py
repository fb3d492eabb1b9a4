"""taskiq. With a list a task is taken before it runs; with a stream it is acknowledged when its result is stored."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from taskiq import AsyncTaskiqTask, TaskiqScheduler
from taskiq_redis import ListQueueBroker, ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import tasks
from benchmarks.adaptors import STORE_URL, Call

broker_class = {"list": ListQueueBroker, "stream": RedisStreamBroker}[os.environ["BENCH_BROKER"]]
broker = broker_class(STORE_URL, max_connection_pool_size=50).with_result_backend(
    RedisAsyncResultBackend(STORE_URL, max_connection_pool_size=50, result_ex_time=86_400)
)
registered = {
    name: broker.register_task(getattr(tasks, name + "_async"), task_name=name) for name in ("noop", "stamp", "nap")
}
source = ListRedisScheduleSource(STORE_URL)
scheduler = TaskiqScheduler(broker, [source])


class Client:
    """Submits with ``kiq()``, many of them at the same time."""

    async def open(self) -> None:
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def submit(self, name: str, *arguments: Any) -> AsyncTaskiqTask[Any]:
        return await registered[name].kiq(*arguments)

    async def submit_many(self, calls: Sequence[Call]) -> list[AsyncTaskiqTask[Any]]:
        return await asyncio.gather(*(self.submit(name, *arguments) for name, arguments in calls))

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> AsyncTaskiqTask[Any]:
        due = datetime.fromtimestamp(due_at, UTC)
        task_id = str(uuid.uuid4())
        await registered[name].kicker().with_task_id(task_id).schedule_by_time(source, due, *arguments)
        return AsyncTaskiqTask(task_id, broker.result_backend)

    async def is_done(self, handle: AsyncTaskiqTask[Any]) -> bool:
        return await handle.is_ready()

    async def result(self, handle: AsyncTaskiqTask[Any]) -> Any:
        return (await handle.wait_result(check_interval=0.001, timeout=60)).return_value
