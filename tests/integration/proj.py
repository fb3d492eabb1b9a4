"""A project with an app of its own, in the manner of Celery's documentation."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from celery.exceptions import Reject
from celery.signals import task_prerun, worker_process_init
from celery.worker.request import Request
from kombu import Exchange, Queue

from taskapp import Celery

app = Celery("proj", broker=os.environ["PROJ_BROKER"])
app.conf.update(
    task_default_queue="usual",
    task_queues=[Queue("urgent", Exchange("work"), "urgent"), Queue("usual", Exchange("work"), "usual")],
    task_routes={"proj.pay": {"queue": "urgent"}},
    broker_transport_options={"visibility_timeout": 3_600},
    worker_prefetch_multiplier=8,
)
state: dict[str, Any] = {"inits": 0, "seen": []}


@worker_process_init.connect
def count(**_: Any) -> None:
    state["inits"] += 1


@task_prerun.connect
def note(task_id: str, **_: Any) -> None:
    state["seen"].append(task_id)


class Base(app.Task):  # type: ignore[name-defined,misc]  # an attribute of the app, as Celery's documentation has it
    abstract = True
    ratio = 3


@app.task(base=Base, bind=True)
def pay(self: Any, amount: int) -> list[Any]:
    return [amount * self.ratio, self.request.delivery_info["routing_key"], state["inits"]]


@app.task
async def wait(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.task(bind=True, max_retries=3)
def flaky(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0.05)
    return int(self.request.retries)


@app.task(bind=True)
def due(self: Any) -> Any:
    return self.request.eta


class OwnRequest(Request):
    """A request class of the project, which builds its requests itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)


@app.task(bind=True, Request=OwnRequest)
def own_due(self: Any) -> Any:
    return self.request.eta


@app.task(queue="dynamic")
def elsewhere() -> str:
    return "dynamic"


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def reject() -> None:
    raise Reject("no", requeue=False)
