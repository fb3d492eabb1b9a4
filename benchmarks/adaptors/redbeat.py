"""RedBeat, the scheduler for Celery's beat that keeps its entries in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from celery import Celery
from celery.schedules import schedule
from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import get_redis

from benchmarks import tasks
from benchmarks.adaptors import STORE_URL

LOOP_SECONDS = 5

app = Celery("redbeat", broker=STORE_URL, backend=STORE_URL)
app.conf.update(
    redbeat_redis_url=STORE_URL,
    beat_max_loop_interval=LOOP_SECONDS,
    # Its documentation: five times the interval.
    redbeat_lock_timeout=LOOP_SECONDS * 5,
    broker_connection_retry_on_startup=True,
)
app.task(tasks.noop, name="noop")


class Client:
    """Adds entries with ``save()``, as its documentation shows, in the state they have after a run."""

    async def open(self) -> None:
        app.finalize()

    async def close(self) -> None:
        app.close()

    async def schedule(self, jobs: Sequence[tuple[str, float]], every_seconds: float) -> None:
        interval = schedule(run_every=timedelta(seconds=every_seconds), app=app)
        for name, first_at in jobs:
            ran_at = datetime.fromtimestamp(first_at - every_seconds, UTC)
            entry = RedBeatSchedulerEntry(name, "noop", interval, args=[0, name], app=app, last_run_at=ran_at)
            entry.save()
            # It treats each new entry as one that has just run; its times are whole seconds.
            get_redis(app).zadd(app.redbeat_conf.schedule_key, {entry.key: int(first_at)})
