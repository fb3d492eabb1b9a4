"""Timed jobs as a user's configuration has them: plain Celery, nothing of taskapp."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import current_app, shared_task
from celery.beat import BeatLazyFunc
from celery.schedules import crontab, schedule


class EverySecond(schedule):
    """A custom schedule class."""

    def __init__(self) -> None:
        super().__init__(timedelta(seconds=1))


@shared_task
def note(line: object) -> object:
    return line


@shared_task(bind=True, max_retries=1, default_retry_delay=0.5)
def try_again(self: Any) -> None:
    raise self.retry()


@shared_task(bind=True, default_retry_delay=0.3)
def come_through(self: Any) -> int:
    if self.request.retries == 0:
        raise self.retry()
    return int(self.request.retries)


@shared_task(time_limit=0.5)
def hang() -> None:
    time.sleep(3)


@shared_task(cpu_bound=True, time_limit=0.5)
def hang_in_child() -> None:
    time.sleep(30)


@shared_task(acks_late=False)
def note_early() -> None:
    pass


@shared_task(ignore_result=True)
def append(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("x\n")


current_app.conf.beat_schedule |= {
    "crontab": {"task": f"{__name__}.note", "schedule": crontab(minute={5, 10}, hour=3), "args": ("crontab",)},
    "seconds": {"task": f"{__name__}.note", "schedule": 1.0, "args": (1,), "options": {"queue": "low", "priority": 7}},
    "custom": {"task": f"{__name__}.note", "schedule": EverySecond(), "args": ("custom",)},
    "lazy": {"task": f"{__name__}.note", "schedule": timedelta(seconds=1), "args": (BeatLazyFunc(lambda: "lazy"),)},
    "taken": {"task": f"{__name__}.note", "schedule": 1.0},
}
