"""A user's own tasks, as a web shop would write them: plain Celery, nothing of taskapp."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

from celery import shared_task
from pydantic import BaseModel

from taskapp import group

logger = logging.getLogger(__name__)


class Order(BaseModel):
    id: int
    note: str = ""


@shared_task
def greet(name: str) -> str:
    return f"hello {name}"


@shared_task
def pay(order: Order) -> Order:
    logger.info("paying")
    return Order(id=order.id, note=type(order).__name__)


@shared_task
def note(line: str, path: str) -> None:
    with Path(path).open("a") as file:
        file.write(line + "\n")


def is_held(path: str | Path) -> bool:
    """Return whether a task keeps its slot until ``path`` exists."""
    return Path(f"{path}.held").exists()


@shared_task
def hold(path: str) -> None:
    """Keep a slot until ``path`` exists."""
    Path(f"{path}.held").touch()
    while not Path(path).exists():
        time.sleep(0.01)


@shared_task
async def hold_softly(path: str) -> None:
    """Keep a slot on the event loop until ``path`` exists."""
    Path(f"{path}.held").touch()
    while not Path(path).exists():
        await asyncio.sleep(0.01)


@shared_task(cpu_bound=True)
def hold_child(path: str) -> None:
    """Keep a child process until ``path`` exists."""
    Path(f"{path}.held").touch()
    while not Path(path).exists():
        time.sleep(0.01)


@shared_task
async def hold_up(seconds: float) -> None:
    """Do what no coroutine may: hold the event loop itself."""
    time.sleep(seconds)


@shared_task(time_limit=1)
def hang(path: str) -> None:
    """Wait where no exception reaches the thread."""
    os.open(path, os.O_RDONLY)


@shared_task(bind=True, autoretry_for=(ValueError,), retry_backoff=True, retry_backoff_max=1, max_retries=2)
def unsteady(self, failures: int) -> int:
    if self.request.retries < failures:
        raise ValueError(f"failure {self.request.retries + 1}")
    return self.request.retries


@shared_task
def fragile() -> None:
    raise ValueError("it breaks")


@shared_task(acks_late=False)
def early(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


@shared_task(bind=True, autoretry_for=(Exception,), retry_backoff=True, retry_backoff_max=1, max_retries=5)
def hopeless(self, path: str) -> None:
    from taskapp.errors import PermanentError

    with Path(path).open("a") as file:
        file.write("ran\n")
    raise PermanentError("no such customer")


@shared_task
def whoami() -> int:
    return os.getpid()


@shared_task(bind=True)
def refund(self, order: Order) -> list:
    return [type(order).__name__, order.id, self.request.retries]


@shared_task
def charge(amount: int) -> int:
    if amount < 0:
        raise ValueError(f"cannot charge {amount}")
    return amount


@shared_task(rate_limit="1/m", rate_scope="node")
def newsletter() -> None:
    """Hardly ever may run."""


@shared_task(time_limit=1)
def dawdle() -> None:
    time.sleep(60)


@shared_task(bind=True)
def kill_the_process(self, path: str) -> None:
    """Leave one line, then end the process that runs it."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{self.request.id}\n".encode())
    os._exit(1)


@shared_task
async def relay(names: list[str]) -> list[str]:
    """Let others do the greeting, and wait for them where a thread would be lost."""
    results = [await greet.adelay(name) for name in names]
    return [await result.aget(timeout=20) for result in results]


@shared_task
def total(values: list[int]) -> int:
    return sum(values)


@shared_task
async def chords_inside(number: int) -> list[int]:
    """Submit a chord and a group from a task on the loop, and wait for both."""
    ones = [total.s([1, 1]) for _ in range(number)]
    chord = await (group(ones) | total.s()).aapply_async()
    sums = await group(ones).aapply_async()
    return [await chord, sum(await sums)]


STAMPS_A_SECOND = 20
Stamp = tuple[str, str, float, bool]
"""Which task, on which node, when it ran, and whether nobody had run it before."""


def _stamp(name: str, request: Any) -> Stamp:
    return name, request.hostname, time.time(), not request.delivery_info["redelivered"]


@shared_task(bind=True, rate_limit=f"{STAMPS_A_SECOND}/s", rate_scope="node")
def stamp(self: Any) -> Stamp:
    return _stamp("stamp", self.request)


@shared_task(bind=True, rate_limit=f"{STAMPS_A_SECOND}/s", rate_scope="node")
async def stamp_on_loop(self: Any) -> Stamp:
    return _stamp("stamp_on_loop", self.request)
