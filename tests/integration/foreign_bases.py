"""A user's tasks whose classes derive from plain ``celery.Task``, from its requests or from its strategies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import celery
from celery import current_app, shared_task
from celery.contrib.abortable import AbortableTask
from celery.worker import strategy as stock
from celery.worker.request import Request

from taskapp.celery import app


class Base(celery.Task):
    """Keeps something for its tasks, as Celery's documentation has it."""

    _connection: str | None = None

    @property
    def connection(self) -> str:
        if self._connection is None:
            self._connection = "open"
        return self._connection


class WithEverything(celery.Task):
    """Overrides what can be overridden, and calls Celery's own."""

    @classmethod
    def on_bound(cls, app: celery.Celery) -> None:
        cls.was_bound = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        return super().apply_async(args, kwargs, **options)

    def retry(self, *args: Any, **options: Any) -> Any:
        return super().retry(*args, **options)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        current_app.backend.client.rpush(f"hooks:{task_id}", "on_success")

    def after_return(self, status: str, *_: Any) -> None:
        current_app.backend.client.rpush(f"hooks:{self.request.id}", f"after_return {status}")


class Noting(Request):
    """Notes how its task failed."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        self.app.backend.client.rpush(f"hooks:{self.id}", "request failed")
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)


class Counting(Noting):
    """Has to be made by its ``__init__``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.made = True

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        assert self.made
        super().on_accepted(pid, time_accepted)


class WithRequest(celery.Task):
    Request = Noting


class WithRequestByName(app.Task):
    Request = f"{__name__}:Counting"


class WithStockStrategy(celery.Task):
    Strategy = "celery.worker.strategy:default"


class AroundStrategy(celery.Task):
    def Strategy(self, task: Any, app: Any, consumer: Any) -> Callable[..., Any]:  # noqa: N802 - Celery's name
        handle = stock.default(task, app, consumer)
        return lambda message, *rest, **options: handle(message, *rest, **options)


def work(self: Any, what: str, value: Any = None) -> Any:
    if what == "retry" and self.request.retries < 2:
        raise self.retry(countdown=0)
    if what == "fail":
        raise ValueError(value)
    if what == "sleep":
        for _ in range(2_000):
            time.sleep(0.01)
    return [value, self.request.id, self.request.retries, getattr(self, "connection", None)]


async def work_softly(self: Any, what: str, value: Any = None) -> Any:
    if what == "sleep":
        await asyncio.sleep(20)
    return work(self, what, value)


BASES = {
    "base": Base, "everything": WithEverything, "abortable": AbortableTask, "request": WithRequest,
    "request_by_name": WithRequestByName, "stock_strategy": WithStockStrategy,
}  # fmt: skip
for _name, _base in BASES.items():
    for _kind, _work, _options in (
        ("def", work, {}),
        ("async", work_softly, {}),
        ("child", work, {"cpu_bound": True}),
    ):
        shared_task(bind=True, base=_base, name=f"foreign.{_name}.{_kind}", max_retries=5, **_options)(_work)
shared_task(bind=True, base=AroundStrategy, name="foreign.around.def", max_retries=5)(work)


class Registered(Base):
    name = "foreign.registered.def"
    max_retries = 5
    run = work


class RegisteredAsync(Base):
    max_retries = 5

    async def run(self, what: str, value: Any = None) -> Any:
        if what == "retry" and self.request.retries < 2:
            raise KeyError(value)  # retried by the options it is registered with
        return await work_softly(self, what, value)


class Inheriting(RegisteredAsync):
    """Has no ``run`` of its own."""


app.register_task(Registered())
for _class, _name in ((RegisteredAsync, "foreign.registered.async"), (Inheriting, "foreign.inheriting.async")):
    _task = _class()
    _task.name = _name
    app.register_task(_task, autoretry_for=(KeyError,), retry_kwargs={"countdown": 0})


class ByRegistry(Base):
    name = "foreign.by_registry.def"
    max_retries = 5
    run = work


app.tasks.register(ByRegistry)

RUN_ALIKE = sorted(name for name in app._tasks if name.startswith("foreign."))


class Batches(celery.Task):
    """Gathers three messages, or what has come within half a second, and has the pool run them in one go."""

    typing = False

    def Strategy(self, task: Any, app: Any, consumer: Any) -> Callable[..., Any]:  # noqa: N802 - Celery's name
        kept: list[Any] = []
        make = stock.create_request_cls(Request, task, consumer.pool, consumer.hostname, consumer.event_dispatcher)

        def flush() -> None:
            requests = kept[:3]
            del kept[:3]
            if requests:
                told = [(one.id, one.args[0]) for one in requests]
                consumer.pool.apply_async(
                    run_batch, (task, told), callback=lambda _: [one.acknowledge() for one in requests]
                )

        def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **_: Any) -> None:
            kept.append(
                make(
                    message, on_ack=ack, on_reject=reject, app=app, hostname=consumer.hostname, task=task,
                    body=message.body, headers=message.headers, connection_errors=consumer.connection_errors,
                )
            )  # fmt: skip
            if len(kept) >= 3:
                flush()
            else:
                consumer.timer.call_after(0.5, flush)

        return handle


def run_batch(task: Any, told: list[tuple[str, Any]]) -> None:
    task([value for _, value in told])
    for task_id, value in told:
        current_app.backend.mark_as_done(task_id, [value, len(told)])


@shared_task(base=Batches, name="foreign_batches.gather")
def gather(values: list[Any]) -> None:
    assert values
