"""Celery's event loop with an asyncio loop inside."""

from __future__ import annotations

import asyncio

from taskapp.worker.pool.hub import LoopHub

TURNS_MOST = 20


def test_coroutines_run_while_the_hub_watches_nothing() -> None:
    """As while the broker is away, whose connections are all there is to watch."""
    hub = LoopHub()
    turns = hub.create_loop()
    next(turns)  # registers what wakes it up

    async def wait() -> str:
        for _ in range(3):
            await asyncio.sleep(0.01)
        return "done"

    task = hub.loop_of_tasks.create_task(wait())

    for _ in range(TURNS_MOST):
        if task.done():
            break
        next(turns)

    assert not hub.readers.keys()
    assert task.done()
    assert task.result() == "done"
    hub.close()
    hub.loop_of_tasks.close()
