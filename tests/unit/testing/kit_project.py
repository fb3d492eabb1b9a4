"""A user's project, with task types of every kind."""

from __future__ import annotations

import asyncio
from typing import Any

from celery import Task as StockTask
from celery import group, shared_task
from celery.exceptions import Ignore, Reject
from pydantic import BaseModel

from taskapp import Celery

app = Celery("kit_project")
app.conf.task_queues = None
app.conf.beat_schedule = {
    "every-ten-minutes": {"task": "kit.note", "schedule": 600.0, "args": ("tick",)},
}

seen: list[Any] = []


class Order(BaseModel):
    id: int
    lines: list[str] = []


@app.task(shared=False, name="kit.add")
def add(x: Any, y: Any) -> Any:
    return x + y


@app.task(shared=False, name="kit.note")
def note(*args: Any, **kwargs: Any) -> Any:
    seen.append([*args, *([kwargs] if kwargs else [])])
    return list(args)


@app.task(shared=False, name="kit.total")
def total(values: list[int]) -> int:
    return sum(values)


@app.task(shared=False, name="kit.fail")
def fail(text: str = "no") -> None:
    raise ValueError(text)


@app.task(shared=False, name="kit.flaky", bind=True, max_retries=3)
def flaky(self: Any, times: int, countdown: float = 60) -> int:
    seen.append(app.now())
    if self.request.retries < times:
        raise self.retry(countdown=countdown, exc=ConnectionError("away"))
    return self.request.retries  # type: ignore[no-any-return]


@app.task(
    shared=False,
    name="kit.auto",
    autoretry_for=(ConnectionError,),
    max_retries=2,
    retry_backoff=True,
    retry_jitter=False,
)
def auto(times: int) -> None:
    seen.append(times)
    raise ConnectionError("away")


@app.task(shared=False, name="kit.async_add")
async def async_add(x: int, y: int) -> int:
    await asyncio.sleep(0)
    return x + y


@app.task(shared=False, name="kit.order")
def order(given: Order) -> Order:
    seen.append(given)
    return given


@app.task(shared=False, name="kit.quiet", ignore_result=True)
def quiet(x: int) -> int:
    seen.append(x)
    return x


@app.task(shared=False, name="kit.replaced", bind=True)
def replaced(self: Any, x: int) -> Any:
    return self.replace(add.s(x, 100))


@app.task(shared=False, name="kit.fan_out", bind=True)
def fan_out(self: Any, n: int) -> Any:
    return self.replace(group(add.s(i, i) for i in range(n)))


@app.task(shared=False, name="kit.parent")
def parent(n: int) -> str:
    for i in range(n):
        note.delay(i)
    return "sent"


@app.task(shared=False, name="kit.waits")
def waits() -> Any:
    return add.delay(1, 1).get()


@app.task(shared=False, name="kit.ends", bind=True)
def ends(self: Any, how: str) -> None:
    if how == "ignore":
        raise Ignore
    if how == "reject":
        raise Reject("no", requeue=False)
    if how == "requeue" and not self.request.delivery_info["redelivered"]:
        raise Reject("no", requeue=True)
    if how == "exit":
        raise SystemExit(3)


@app.task(shared=False, name="kit.again")
def again() -> None:
    again.delay()


@app.task(shared=False, name="kit.ends_twice", bind=True)
def request_of(self: Any) -> dict[str, Any]:
    request = self.request
    return {"retries": request.retries, "queue": request.delivery_info["routing_key"], "headers": request.headers}


@app.task(shared=False, name="kit.error_seen")
def error_seen(request: Any, error: Any, traceback: Any) -> None:
    seen.append((request.id, str(error)))


@app.task(shared=False, name="kit.failed_id")
def failed_id(task_id: str) -> None:
    seen.append(task_id)


@shared_task(name="kit.shared")
def shared(x: int) -> int:
    return x * 2


class Greeter(StockTask):  # type: ignore[type-arg]
    name = "kit.greeter"

    def run(self, name: str) -> str:
        return f"hello {name}"


greeter = app.register_task(Greeter())


class Awkward(Exception):
    """An error that cannot be pickled: its constructor needs two arguments."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@app.task(shared=False, name="kit.awkward")
def awkward() -> None:
    raise Awkward(7, "awkward")
