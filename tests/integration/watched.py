"""Tasks that say what they do: progress, log lines, retries."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from celery import shared_task
from celery.utils.log import get_task_logger

logger = logging.getLogger(__name__)
task_logger = get_task_logger(__name__)


@shared_task(bind=True)
def step(self: Any, path: str) -> str:
    """Say how far it is, until ``path`` exists."""
    return _step(self, path)


@shared_task(bind=True)
async def step_softly(self: Any, path: str) -> str:
    self.progress(1, 4, "half \x1b[31mred")
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    await asyncio.to_thread(self.progress, 4, 4, "done")
    return "stepped"


@shared_task(bind=True, cpu_bound=True)
def step_in_child(self: Any, path: str) -> str:
    return _step(self, path)


def _step(task: Any, path: str) -> str:
    task.progress(1, 4, "half \x1b[31mred")
    while not Path(path).exists():
        time.sleep(0.01)
    task.progress(4, 4, "done")
    return "stepped"


@shared_task(bind=True)
def race(self: Any, count: int) -> None:
    """Say it much faster than it can be written."""
    for n in range(count):
        self.progress(n + 1, count)


@shared_task
def quick() -> int:
    return 1


@shared_task
def fail() -> None:
    raise ValueError("no \x1b[2Jgood")


@shared_task(keeps_failures=False)
def fail_unkept() -> None:
    raise ValueError("not kept")


@shared_task(bind=True, max_retries=3)
def try_again(self: Any, seconds: float) -> None:
    """Ask for another run ``seconds`` from now."""
    try:
        raise ConnectionError(f"refused {self.request.retries}")
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=seconds) from error


@shared_task(acks_late=False)
def early(path: str) -> None:
    """Run without a message."""
    while not Path(path).exists():
        time.sleep(0.01)


@shared_task
def talk(path: str, name: str = "talk") -> None:
    """Log, in every way there is; then until ``path`` exists."""
    logger.info("%s: plain", name)
    task_logger.warning("%s: by Celery's logger", name)
    print(f"{name}: printed")  # noqa: T201 - what is tested
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("%s: failed", name)
    while path and not Path(path).exists():
        time.sleep(0.01)
    logger.info("%s: over", name)


@shared_task
async def talk_softly(path: str, name: str) -> None:
    logger.info("%s: begins", name)
    while not Path(path).exists():
        await asyncio.sleep(0.01)
    await asyncio.gather(_say(f"{name}: gathered"), asyncio.to_thread(logger.info, "%s: in a thread", name))


async def _say(text: str) -> None:
    logger.info(text)


@shared_task(cpu_bound=True)
def talk_in_child(path: str, name: str) -> None:
    talk.run(path, name)


@shared_task
def flood(lines: int, width: int) -> None:
    """Log very much."""
    for n in range(lines):
        logger.info("%06d%s", n, "x" * width)


@shared_task
def count_slowly(path: str) -> int:
    """Log a number each few milliseconds until ``path`` exists; return how many."""
    n = 0
    while not Path(path).exists():
        logger.info("line %d", n)
        n += 1
        time.sleep(0.02)
    return n


@shared_task
def hostile() -> None:
    logger.info("\x1b[2J\x1b]0;owned\x07 red \r over \x9b31m \u202e back\nsecond line")
