"""Huey. A task is taken from the queue before it runs, so one that was running when its worker died is lost."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from huey import RedisHuey
from huey.api import Result

from benchmarks import tasks
from benchmarks.adaptors import STORE_URL

# Waits for results with a blocking read, which is off by default.
app = RedisHuey("bench", url=STORE_URL, notify_result=True, utc=False)
registered = {name: app.task(name=name)(getattr(tasks, name)) for name in ("noop", "stamp", "nap")}


class Client:
    """Submits by calling the task; there is no way to submit many at once."""

    async def open(self) -> None:
        app.storage.conn.ping()

    async def close(self) -> None:
        app.storage.conn.close()

    async def submit(self, name: str, *arguments: Any) -> Result:
        return registered[name](*arguments)

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> Result:
        return registered[name].schedule(arguments, eta=datetime.fromtimestamp(due_at))  # noqa: DTZ006 - Huey's own zone

    async def is_done(self, handle: Result) -> bool:
        # The handle would remove the result from the store.
        return app.storage.has_data_for_key(handle.id)

    async def result(self, handle: Result) -> Any:
        return handle.get(blocking=True, timeout=60)
