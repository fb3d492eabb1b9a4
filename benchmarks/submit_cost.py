"""What submitting costs the submitting process: CPU per task, compared with stock Celery.

    python benchmarks/submit_cost.py [--tasks 2000] [--rounds 5] [--redis redis://localhost:6379/15]

All ways are measured in turn, round by round, and medians are shown, so that a busy machine affects all of them alike.
The database must be empty; it is emptied after every round. CPU is user and system time of this process alone.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import redis


def ways(url: str) -> dict[str, Callable[[int], Any]]:
    """Return the ways to measure: each submits the given number of no-op tasks."""
    os.environ.setdefault("TASKAPP_ENV_FILE", "")
    os.environ["TASKAPP_BROKER_URL"] = url
    from celery import Celery, group

    from taskapp.celery import app
    from taskapp.tasks import add

    stock = Celery("stock", broker=url, backend=url, set_as_current=False)
    stock.conf.update(task_send_sent_event=True, broker_connection_retry_on_startup=True)

    @stock.task(name="stock.add")
    def theirs(x: int, y: int) -> int:
        return x + y

    def without_event(submit: Callable[[int], Any]) -> Callable[[int], Any]:
        def submit_quietly(count: int) -> None:
            app.conf.task_send_sent_event = False
            try:
                submit(count)
            finally:
                del app.conf["task_send_sent_event"]

        return submit_quietly

    ours: dict[str, Callable[[int], Any]] = {
        "delay()": lambda count: [add.delay(2, 3) for _ in range(count)],
        "submit_many()": lambda count: add.submit_many((2, 3) for _ in range(count)),
        "group()": lambda count: group(add.s(2, 3) for _ in range(count)).apply_async(),
    }
    return {
        **{f"taskapp {name}": way for name, way in ours.items()},
        **{f"taskapp {name}, no task-sent event": without_event(way) for name, way in ours.items()},
        "taskapp adelay(), one after the other": lambda count: run_in_loop(add, count, together=1),
        "taskapp adelay(), 100 at once": lambda count: run_in_loop(add, count, together=100),
        "stock Celery delay()": lambda count: [theirs.delay(2, 3) for _ in range(count)],
        "stock Celery group()": lambda count: group(theirs.s(2, 3) for _ in range(count)).apply_async(),
    }


def run_in_loop(task: Any, count: int, *, together: int) -> None:
    """Submit from many coroutines at once."""
    import asyncio

    async def submit() -> None:
        for _ in range(count // together):
            await asyncio.gather(*(task.adelay(2, 3) for _ in range(together)))

    asyncio.run(submit())


def measure(way: Callable[[int], Any], count: int) -> float:
    """Return the CPU time of this process per task, in µs."""
    gc.collect()
    began = time.process_time()
    way(count)
    return (time.process_time() - began) / count * 1e6


def rounds(
    measured: dict[str, Callable[[int], Any]], count: int, tasks: int, empty: Callable[[], Any]
) -> dict[str, list[float]]:
    """Return the figures of ``count`` rounds, all ways in turn."""
    figures: dict[str, list[float]] = {name: [] for name in measured}
    for way in measured.values():
        way(100)  # connections, scripts, caches
    for _ in range(count):
        for name, way in measured.items():
            empty()
            figures[name].append(measure(way, tasks))
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=2_000, help="for each way and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--redis", default="redis://localhost:6379/15")
    options = parser.parse_args()
    client = redis.Redis.from_url(options.redis)
    if client.dbsize():
        sys.exit(f"{options.redis} is not empty; name another with --redis")
    try:
        figures = rounds(ways(options.redis), options.rounds, options.tasks, client.flushdb)
    finally:
        client.flushdb()
    for name, each in figures.items():
        print(f"{name:45} {statistics.median(each):7.1f} µs   ({min(each):.1f} to {max(each):.1f})")


if __name__ == "__main__":
    main()
