"""Task types for the suite: each body is written once and registered as ``name.async`` and as ``name.def``."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import redis
import redis.asyncio
from celery import current_app, current_task, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from pydantic import BaseModel

logger = logging.getLogger(__name__)
BROKER_URL = os.environ.get("TASKAPP_BROKER_URL", "redis://127.0.0.1:1")
client = redis.Redis.from_url(BROKER_URL, decode_responses=True)


_blocks: ContextVar[bool] = ContextVar("blocks", default=False)


def as_function(body: Callable[..., Any]) -> Callable[..., Any]:
    """The same body as a plain function: where a coroutine would wait, it blocks."""

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        token = _blocks.set(True)
        try:
            body(*args, **kwargs).send(None)
        except StopIteration as end:
            return end.value
        finally:
            _blocks.reset(token)
        raise AssertionError("a plain function cannot wait for a loop")

    return run


def both(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Register a body as two task types."""

    def register(body: Callable[..., Any]) -> Any:
        name = options.pop("name", body.__name__)
        shared_task(name=f"{name}.def", **options)(as_function(body))
        return shared_task(name=f"{name}.async", **options)(body)

    return register


async def pause(seconds: float) -> None:
    """Wait: a coroutine by awaiting, a function by blocking, with a bytecode now and then."""
    if not _blocks.get():
        await asyncio.sleep(seconds)
        return
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


def note(task_id: str, *what: Any) -> None:
    """Leave a line for the test to read."""
    client.rpush(f"seen:{task_id}", json.dumps(what))


# --- values and where it runs -----------------------------------------------------------------------


class Order(BaseModel):
    id: int
    note: str = ""


class Unpicklable(Exception):
    """Neither pickle nor JSON can hold its argument."""

    def __init__(self, what: str, lock: Any) -> None:
        super().__init__(what, lock)


@both()
async def echo(*args: Any, **kwargs: Any) -> Any:
    await pause(0)
    return [list(args), kwargs]


@both()
async def double(number: int) -> int:
    return number * 2


@both()
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@both(bind=True)
async def describe(self: Any, *args: Any, **kwargs: Any) -> Any:
    await pause(0.01)
    request = self.request
    return {
        "id": request.id, "args": request.args, "kwargs": request.kwargs, "retries": request.retries,
        "priority": request.delivery_info["priority"], "routing_key": request.delivery_info["routing_key"],
        "redelivered": request.delivery_info.get("redelivered"), "headers": request.headers, "root_id": request.root_id,
        "parent_id": request.parent_id, "group": request.group, "correlation_id": request.correlation_id,
        "called_directly": request.called_directly, "is_eager": request.is_eager, "timelimit": request.timelimit,
        "hostname": request.hostname, "task": self.name, "current": current_task.name,
        "current_id": current_task.request.id,
    }  # fmt: skip


@both()
async def where() -> Any:
    """Which process and thread runs it."""
    await pause(0)
    return [os.getpid(), threading.current_thread().name]


@shared_task(bind=True, name="spread.async")
async def spread(self: Any) -> Any:
    """Ids seen in everything a coroutine may spread its work over."""

    async def look() -> str:
        await asyncio.sleep(0.01)
        return str(current_task.request.id)

    gathered = await asyncio.gather(look(), look())
    async with asyncio.TaskGroup() as several:
        grouped = [several.create_task(look()) for _ in range(2)]
    threaded = await asyncio.to_thread(lambda: [self.request.id, current_task.request.id])
    return [self.request.id, *gathered, *(task.result() for task in grouped), *threaded, self.request.id]


@both()
async def order(order: Order) -> Order:
    await pause(0)
    return Order(id=order.id + 1, note=type(order).__name__)


@both(typed=True)
async def add_typed(x: int, y: int) -> int:
    return x + y


@shared_task(bind=True, name="count_down.async")
async def count_down(self: Any, number: int) -> list[int]:
    return [number, *(await self(number - 1) if number else [])]


@both(bind=True)
async def speak(self: Any) -> None:
    logger.info("spoken before %s", self.request.id)
    await pause(0.05)
    logger.info("spoken after %s", self.request.id)


# --- ends -------------------------------------------------------------------------------------------


@both(bind=True)
async def flaky(self: Any, failures: int, countdown: float = 0.0) -> int:
    """Fail ``failures`` times, retrying itself."""
    note(self.request.root_id, time.time())
    await pause(0)
    if self.request.retries < failures:
        raise self.retry(exc=ValueError(f"failure {self.request.retries + 1}"), countdown=countdown)
    return self.request.retries


@both(bind=True)
async def hopeless(self: Any, with_error: bool) -> None:
    note(self.request.root_id, self.request.retries)
    error = ValueError("hopeless") if with_error else None
    raise self.retry(exc=error, countdown=0, max_retries=1)


@both(bind=True)
async def changing(self: Any, number: int) -> int:
    if not self.request.retries:
        raise self.retry(args=(number + 1,), countdown=0)
    return number


ERRORS: dict[str, type[Exception]] = {
    "retried": ConnectionError, "never": ConnectionResetError, "other": KeyError, "ignored": Ignore,
}  # fmt: skip


@both(
    bind=True, autoretry_for=(ConnectionError, Ignore), dont_autoretry_for=(ConnectionResetError,), max_retries=2,
    retry_backoff=True, retry_backoff_max=1,
)  # fmt: skip
async def automatic(self: Any, error: str, failures: int) -> int:
    note(self.request.root_id, self.request.retries)
    await pause(0)
    if self.request.retries < failures:
        raise ERRORS[error](f"failure {self.request.retries + 1}")
    return self.request.retries


@both(bind=True, autoretry_for=(ConnectionError,), max_retries=5, default_retry_delay=0, retry_kwargs={"countdown": 0})
async def bounded(self: Any) -> None:
    """Bounds its retries itself, inside what is retried by itself anyway."""
    note(self.request.root_id, self.request.retries)
    raise self.retry(exc=ConnectionError("bounded"), countdown=0, max_retries=1)


@both(bind=True)
async def nap(self: Any, seconds: float = 60.0) -> str:
    note(self.request.id, "began")
    try:
        await pause(seconds)
    except SoftTimeLimitExceeded:
        note(self.request.id, "over the soft limit")
        return "cleaned up"
    finally:
        note(self.request.id, "left")
    return "slept"


@both(bind=True, soft_time_limit=0.3, time_limit=20)
async def limited(self: Any) -> None:
    await pause(60)


@both(bind=True)
async def deaf(self: Any) -> None:
    """Go on after the soft limit."""
    try:
        await pause(60)
    except SoftTimeLimitExceeded:
        note(self.request.id, "heard")
        await pause(60)


async def _child(task_id: str, name: str) -> None:
    note(task_id, name, "began")
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)
        note(task_id, name, "left")


@shared_task(bind=True, name="nursery.async")
async def nursery(self: Any, where: str) -> str:
    """Children of a coroutine over its soft limit, which catches it as any other error."""
    one, two = (_child(self.request.id, name) for name in ("one", "two"))
    try:
        if where == "group":
            async with asyncio.TaskGroup() as several:
                several.create_task(one)
                several.create_task(two)
        else:
            async with asyncio.timeout(50):
                await asyncio.gather(one, two)
    except SoftTimeLimitExceeded as limit:
        note(self.request.id, "body", repr(limit))
        # It goes on as if nothing had been cancelled.
        await asyncio.sleep(0.05)
        return f"cancelling {asyncio.current_task().cancelling()}"  # type: ignore[union-attr]
    return "never"


@shared_task(bind=True, name="busy_nursery.async")
async def busy_nursery(self: Any) -> None:
    """A limit reached in the body of a group, which wraps whatever is raised there."""
    async with asyncio.TaskGroup() as several:
        several.create_task(_child(self.request.id, "one"))
        await asyncio.sleep(60)


@both(bind=True)
async def ignoring(self: Any) -> None:
    note(self.request.id, "ran")
    raise Ignore("of no interest")


@both(bind=True)
async def rejecting(self: Any, requeue: bool) -> str:
    note(self.request.id, self.request.delivery_info["redelivered"])
    if client.llen(f"seen:{self.request.id}") > 1:
        return "taken the second time"
    raise Reject("not now", requeue=requeue)


@both()
async def failing(message: str) -> None:
    await pause(0)
    raise ValueError(message)


@both()
async def strange() -> None:
    raise Unpicklable("strange", threading.Lock())


@both()
async def unencodable() -> Any:
    return {"what": object()}


@both()
async def leaving() -> None:
    await pause(0)
    sys.exit(3)


@both()
async def hungry() -> None:
    await pause(0)
    raise MemoryError("all gone")


@both(bind=True)
async def cancelled(self: Any) -> None:
    """A cancellation of the task's own making."""
    raise asyncio.CancelledError


async def hold(self: Any, key: str) -> str:
    """Keep a slot until the key exists."""
    note(self.request.id, "began")
    while not client.exists(key):
        await pause(0.02)
    return "held"


both(bind=True, name="hold")(hold)
both(bind=True, name="hold_early", acks_late=False)(hold)


@both(rate_limit="4/s")
async def limited_rate() -> float:
    return time.time()


@both(ignore_result=True, bind=True)
async def unheard(self: Any) -> int:
    note(self.request.id, "ran")
    return 1


# --- canvas -----------------------------------------------------------------------------------------


@both(bind=True)
async def tell(self: Any, value: Any, key: str) -> Any:
    """What a link is given."""
    note(key, value, self.request.parent_id, self.request.root_id)
    return value


@both()
async def mourn(request: Any, error: Any, traceback: Any, key: str = "") -> None:
    """What an errback is given."""
    await pause(0.01)
    note(key, request.id, repr(error), "Traceback" in str(traceback))


@both()
async def mourn_by_result(request: Any, error: Any, traceback: Any, key: str = "") -> None:
    """What is stored of the failed task when its errback runs."""
    note(key, current_app.AsyncResult(request.id).state)


@both(bind=True)
async def substitute(self: Any, number: int) -> Any:
    name = self.name.replace("substitute", "double")
    raise self.replace(self.app.tasks[name].s(number).set(queue=self.request.delivery_info["routing_key"]))


# --- clients that live on the loop --------------------------------------------------------------------

_asynchronous: Any = None
_bell: Any = None
_in_flight = 0


@shared_task(name="counter.async")
async def counter(key: str) -> Any:
    """Count with one client for all tasks of the process."""
    global _asynchronous
    if _asynchronous is None:
        connections = redis.asyncio.BlockingConnectionPool.from_url(BROKER_URL, max_connections=1)
        _asynchronous = redis.asyncio.Redis(connection_pool=connections)
    return [await _asynchronous.incr(key), await _asynchronous.client_id()]


@shared_task(name="await_bell.async")
async def await_bell(key: str) -> str:
    """Wait for an ``asyncio.Event`` that another task sets."""
    global _bell
    _bell = asyncio.Event()
    note(key, "waits")
    await _bell.wait()
    return "heard"


@shared_task(name="ring_bell.async")
async def ring_bell() -> None:
    _bell.set()


@shared_task(name="crowd.async")
async def crowd(size: int) -> int:
    """Wait until that many are in flight at once; return the number."""
    global _in_flight, _bell
    if not _in_flight:
        _bell = asyncio.Event()
    _in_flight += 1
    if _in_flight == size:
        _bell.set()
    async with asyncio.timeout(30):
        await _bell.wait()
    return size


# --- child processes ----------------------------------------------------------------------------------


@both(bind=True, cpu_bound=True)
async def compute(self: Any, end: str = "") -> Any:
    note(self.request.id, os.getpid())
    await pause(0)
    if end == "leave":
        sys.exit(3)
    if end == "hang":
        time.sleep(60)
    if end == "fail":
        raise ValueError("of the child")
    if end == "wait":
        await pause(60)
    return [os.getpid(), self.request.id, current_task.request.id]
