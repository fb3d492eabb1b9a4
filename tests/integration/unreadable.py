"""A user's own tasks, for messages of which something cannot be read."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from celery import shared_task
from kombu.asynchronous import get_event_loop


@shared_task
def echo(value: object = None) -> object:
    return value


@shared_task
async def echo_on_loop(value: object = None) -> object:
    return value


@shared_task(cpu_bound=True)
def echo_in_child(value: object = None) -> object:
    return value


@shared_task
def count(values: list[object]) -> int:
    return len(values)


@shared_task
def write(failed_id: str, path: str) -> None:
    with Path(path).open("a") as file:
        file.write(failed_id + "\n")


def _raise() -> None:
    raise RuntimeError("of the loop itself")


@shared_task
async def break_loop(path: str) -> None:
    """Let the loop of the node that runs it break off; each run leaves a line."""
    write("run", path)
    get_event_loop().call_soon(_raise)
    await asyncio.sleep(30)


@shared_task
def break_loop_of_thread(path: str) -> None:
    """The same, from a thread."""
    write("run", path)
    get_event_loop().call_soon(_raise)
    time.sleep(30)
