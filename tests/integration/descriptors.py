"""Task types that leave their process without a free file descriptor, and others to run meanwhile."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import time
from typing import Any

from celery import shared_task
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)
taken: list[int] = []
usual = resource.getrlimit(resource.RLIMIT_NOFILE)
AGAIN_SECONDS = 0.02


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
    """Also take those of connections that break, for ``seconds``; then release all.

    Only then: a thread that takes whatever is free all the time may take what the loop has just made free for itself,
    and ends the node.
    """
    ends_at = time.monotonic() + seconds
    connections = [each for each in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]) if _is_connection(each)]
    _take_free_ones()
    while time.monotonic() < ends_at:
        if not all(map(_is_connection, connections)):
            _take_free_ones()
            connections = [each for each in connections if _is_connection(each)]
        time.sleep(AGAIN_SECONDS)
    release()


def _is_connection(descriptor: int) -> bool:
    """Return whether it is a TCP socket: the loop's own sockets are others."""
    try:
        one = socket.socket(fileno=descriptor)
    except OSError:
        return False
    try:
        return one.family == socket.AF_INET
    finally:
        one.detach()


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
