"""taskapp. ``BENCH_WATCHED`` keeps its default events, STARTED and extended results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from celery.result import AsyncResult

from benchmarks import tasks
from benchmarks.adaptors import Call
from taskapp.celery import app
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import Interval

SUFFIX = os.environ.get("BENCH_TASKS", "")
"""``_async`` for coroutine functions."""

if not os.environ.get("BENCH_WATCHED"):
    app.conf.update(
        worker_send_task_events=False, task_send_sent_event=False, task_track_started=False, result_extended=False
    )
registered = {name: app.task(getattr(tasks, name + SUFFIX), name=f"bench.{name}") for name in ("noop", "stamp", "nap")}


class Client:
    """Submits with ``delay()``, many with ``submit_many()``."""

    async def open(self) -> None:
        app.finalize()

    async def close(self) -> None:
        app.close()

    async def submit(self, name: str, *arguments: Any) -> AsyncResult:
        return registered[name].delay(*arguments)

    async def submit_many(self, calls: Sequence[Call]) -> list[AsyncResult]:
        name = calls[0][0]
        return registered[name].submit_many([arguments for _name, arguments in calls])

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> AsyncResult:
        return registered[name].apply_async(arguments, eta=datetime.fromtimestamp(due_at, UTC))

    async def submit_many_at(self, due_at: float, calls: Sequence[Call]) -> list[AsyncResult]:
        due = datetime.fromtimestamp(due_at, UTC)
        return registered[calls[0][0]].submit_many([arguments for _name, arguments in calls], eta=due)

    async def schedule(self, jobs: Sequence[tuple[str, float]], every_seconds: float) -> None:
        with app.schedules() as schedules:
            for name, first_at in jobs:
                # Arguments as a real task type would have; the name in them identifies the job in the queue.
                when = Interval(every_seconds, round(first_at, 3))
                schedules.add(Schedule(name, "bench.noop", when, args=(0, name)))

    async def is_done(self, handle: AsyncResult) -> bool:
        # A new handle: the other keeps the result it has seen, and reading it would cost nothing.
        return app.AsyncResult(handle.id).ready()

    async def result(self, handle: AsyncResult) -> Any:
        return handle.get(timeout=60)
