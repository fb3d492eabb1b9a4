"""Celery, configured so that it loses no task: it acknowledges after the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.result import AsyncResult

from benchmarks import tasks
from benchmarks.adaptors import STORE_URL, Call

app = Celery("stock", broker=STORE_URL, backend=STORE_URL)
is_watched = bool(os.environ.get("BENCH_WATCHED"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    worker_send_task_events=is_watched,
    task_send_sent_event=is_watched,
    task_track_started=is_watched,
    result_extended=is_watched,
    broker_connection_retry_on_startup=True,
)
registered = {name: app.task(getattr(tasks, name), name=name) for name in ("noop", "stamp", "nap")}


class Client:
    """Submits with ``delay()``; many with one producer held for all of them."""

    async def open(self) -> None:
        app.finalize()

    async def close(self) -> None:
        app.close()

    async def submit(self, name: str, *arguments: Any) -> AsyncResult:
        return registered[name].delay(*arguments)

    async def submit_many(self, calls: Sequence[Call]) -> list[AsyncResult]:
        with app.producer_pool.acquire(block=True) as producer:
            return [registered[name].apply_async(arguments, producer=producer) for name, arguments in calls]

    async def submit_at(self, due_at: float, name: str, *arguments: Any) -> AsyncResult:
        return registered[name].apply_async(arguments, eta=datetime.fromtimestamp(due_at, UTC))

    async def is_done(self, handle: AsyncResult) -> bool:
        # A new handle: the other keeps the result it has seen, and reading it would cost nothing.
        return app.AsyncResult(handle.id).ready()

    async def result(self, handle: AsyncResult) -> Any:
        return handle.get(timeout=60)
