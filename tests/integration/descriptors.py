"""Task types that leave their process without a free file descriptor, and others to run meanwhile."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from typing import Any

from celery import shared_task
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)
taken: list[int] = []
usual = resource.getrlimit(resource.RLIMIT_NOFILE)


def _take_free_ones() -> None:
    with_none_left = False
    while not with_none_left:
        try:
            taken.append(os.dup(0))
        except OSError:
            with_none_left = True


@shared_task(name="descriptors.take")
def take() -> None:
    """Take all that are free, as a task does that leaks them, until ``release``."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 4, usual[1]))
    _take_free_ones()


@shared_task(name="descriptors.take_again")
def take_again(seconds: float) -> None:
    """Take whatever becomes free for ``seconds``, also what breaking connections leave; then release all."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        _take_free_ones()
        time.sleep(0)  # lets others run: what they open is free for a moment now and then
    release()


@shared_task(name="descriptors.release")
def release() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    while taken:
        os.close(taken.pop())


@shared_task(name="descriptors.double")
def double(number: int) -> int:
    return number * 2


@shared_task(name="descriptors.double_async")
async def double_async(number: int) -> int:
    await asyncio.sleep(0.01)
    return number * 2


@shared_task(name="descriptors.double_in_child", cpu_bound=True)
def double_in_child(number: int) -> int:
    return number * 2


@shared_task(name="descriptors.fail")
def fail() -> None:
    raise ValueError("as it should")


@shared_task(name="descriptors.fail_once", bind=True, max_retries=1)
def fail_once(self: Any) -> str:
    if not self.request.retries:
        raise self.retry(countdown=0.1)
    return "again"


@shared_task(name="descriptors.note", bind=True)
def note(self: Any) -> None:
    self.update_state(state="HALFWAY")
    self.progress(1, 2)
    logger.warning("no descriptor was needed")


@shared_task(name="descriptors.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task(name="descriptors.wait")
async def wait(seconds: float) -> None:
    await asyncio.sleep(seconds)


@shared_task(name="descriptors.take_and_wait")
def take_and_wait(seconds: float) -> None:
    take()
    time.sleep(seconds)
