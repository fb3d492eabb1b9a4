"""procrastinate, on PostgreSQL. It stores no results: the tasks here write them to a table of their own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from procrastinate import App, JobContext, PsycopgConnector

from benchmarks import tasks
from benchmarks.adaptors import SLOTS, STORE_URL, Call

PARAMETERS = {"noop": ("number", "padding"), "stamp": (), "nap": ("seconds",)}
TABLE = "CREATE TABLE IF NOT EXISTS bench_results (id bigint PRIMARY KEY, value jsonb)"

connector = PsycopgConnector(conninfo=STORE_URL, min_size=2, max_size=10)
app = App(connector=connector, worker_defaults={"concurrency": SLOTS})


async def store(context: JobContext, value: Any) -> None:
    await connector.execute_query_async(
        "INSERT INTO bench_results VALUES (%(id)s, %(value)s::jsonb) ON CONFLICT DO NOTHING",
        id=context.job.id,
        value=json.dumps(value),
    )


@app.task(name="noop", pass_context=True)
async def noop(context: JobContext, number: int, padding: str = "") -> None:
    await store(context, await tasks.noop_async(number, padding))


@app.task(name="stamp", pass_context=True)
async def stamp(context: JobContext) -> None:
    await store(context, await tasks.stamp_async())


@app.task(name="nap", pass_context=True)
async def nap(context: JobContext, seconds: float) -> None:
    await store(context, await tasks.nap_async(seconds))


registered = {"noop": noop, "stamp": stamp, "nap": nap}


class Client:
    """Submits with ``defer_async()``, many with ``batch_defer_async()``."""

    async def open(self) -> None:
        await connector.open_async()
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        await connector.execute_query_async(TABLE)

    async def close(self) -> None:
        await connector.close_async()

    async def submit(self, name: str, *arguments: Any) -> int:
        return await registered[name].defer_async(**dict(zip(PARAMETERS[name], arguments, strict=False)))

    async def submit_many(self, calls: Sequence[Call]) -> list[int]:
        name = calls[0][0]
        named = [dict(zip(PARAMETERS[name], arguments, strict=False)) for _name, arguments in calls]
        return await registered[name].batch_defer_async(*named)

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> int:
        named = dict(zip(PARAMETERS[name], arguments, strict=False))
        task = registered[name].configure(schedule_at=datetime.fromtimestamp(due_at, UTC))
        return await task.defer_async(**named)

    async def is_done(self, handle: int) -> bool:
        rows = await connector.execute_query_all_async("SELECT 1 FROM bench_results WHERE id = %(id)s", id=handle)
        return bool(rows)

    async def result(self, handle: int) -> Any:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            query = "SELECT value FROM bench_results WHERE id = %(id)s"
            for row in await connector.execute_query_all_async(query, id=handle):
                return row["value"]
            await asyncio.sleep(0.001)
        raise TimeoutError
