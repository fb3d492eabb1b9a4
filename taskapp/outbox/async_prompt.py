"""Relays rows as soon as an async session has committed them, on its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from taskapp.outbox.promptly import Commit, promptly
from taskapp.outbox.rows import PushOutcome, parts_of
from taskapp.outbox.sql_store import check_version, claim, settle

_running: set[asyncio.Task[Any]] = set()
"""Loops keep only weak references to tasks."""


def note(commit: Commit) -> None:
    """Relay the rows of ``commit`` soon, on the running loop. Never waits, never raises."""
    if promptly().is_paused:
        return
    try:
        task = asyncio.get_running_loop().create_task(_relay(commit))
    except RuntimeError:  # no loop runs; the rows wait for a relay
        return
    _running.add(task)
    task.add_done_callback(_running.discard)


async def _relay(commit: Commit) -> None:
    relay = promptly()
    try:
        for part in parts_of(commit.ids):
            claimed = 1
            while claimed and not relay.is_paused:  # a claim ends with a number of bytes, too
                claimed, outcome = await _relayed(commit, part)
                relay.report(commit.store, outcome)
    except Exception as error:  # noqa: BLE001 - the user's pool or driver may raise anything
        relay.failed(f"{type(error).__name__}: {error}")


async def _relayed(commit: Commit, ids: Sequence[str]) -> tuple[int, PushOutcome]:
    """Do what ``SqlStore.relay`` does, without blocking the loop."""
    from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet, which sync sessions do without

    store: Any = commit.store
    engine = AsyncEngine(store.engine)
    push = promptly().pusher(commit.app).push
    async with engine.connect() as connection:
        if store.locks_rows:
            await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin():
            await connection.run_sync(check_version)
            rows = await connection.run_sync(claim, ids)
            if not rows or store.locks_rows:
                outcome = await asyncio.to_thread(push, rows) if rows else PushOutcome()
                await connection.run_sync(partial(settle, rows=rows, outcome=outcome))
                return len(rows), outcome
        outcome = await asyncio.to_thread(push, rows)
        async with connection.begin():
            await connection.run_sync(partial(settle, rows=rows, outcome=outcome))
    return len(rows), outcome
