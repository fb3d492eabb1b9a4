"""A project of stock Celery, which ``CELERY_LOADER`` turns into one of taskapp."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task, shared_task

app = Celery("uneditable", broker=os.environ["PROJ_BROKER"])
app.conf.update(task_default_queue="old", task_time_limit=60)


class Base(Task):
    abstract = True
    unit = "EUR"


@app.task(bind=True, autoretry_for=(ValueError,), retry_kwargs={"countdown": 0.05}, max_retries=3)
def flaky(self: Any) -> int:
    if self.request.retries < 2:
        raise ValueError
    return int(self.request.retries)


@app.task(base=Base, bind=True)
def price(self: Any, x: int) -> str:
    return f"{x} {self.unit}"


@shared_task(name="uneditable.coroutine")
async def coroutine(x: int) -> int:
    return x


class Own(Celery):
    """A class of the project's own."""


own = Own("own", set_as_current=False)
