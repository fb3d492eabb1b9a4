"""Kills what writes and what relays an outbox, again and again: ``python -m … URL KILLS SEED``.

Every child is forked, so that a hundred kills take seconds. Submitters commit an order together with its task, or roll
both back; relays queue what is there. Each is killed with SIGKILL: at a random moment, or by itself at the points where
it matters. The test compares orders with messages afterwards.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from taskapp.celery import app
from taskapp.outbox import async_prompt, promptly, sql_store, sqlalchemy
from taskapp.outbox.relay import Relay
from taskapp.outbox.sql_store import SqlStore
from taskapp.outbox.sqlalchemy import with_session
from tests.integration.outbox import jobs

orders = Table("orders", MetaData(), Column("id", String(64), primary_key=True), Column("state", String(16)))
POINTS = ("random", "before the commit", "after the commit", "between push and delete", "after the delete")


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(call: Callable[..., Any], number: int, *, before: bool) -> Callable[..., Any]:
    """Return ``call``, which ends the process at its call ``number``: before or after its work."""
    left = [number]

    def counted(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if before and not left[0]:
            die()
        result = call(*args, **options)
        if not before and not left[0]:
            die()
        return result

    return counted


def place(point: str, number: int) -> None:
    """Prepare this process to die at ``point``."""
    if point == "before the commit":
        Session.commit = dying(Session.commit, number, before=True)  # type: ignore[method-assign]
    elif point == "after the commit":
        sqlalchemy._relay_soon = dying(sqlalchemy._relay_soon, number, before=True)
    elif point == "between push and delete":
        sql_store.settle = async_prompt.settle = dying(sql_store.settle, number, before=True)
    elif point == "after the delete":
        sql_store.settle = async_prompt.settle = dying(sql_store.settle, number, before=False)


def submit(url: str, seed: int) -> None:
    engine, rng = SqlStore.at(url).engine, random.Random(seed)
    while True:
        with Session(engine) as session:
            for _ in range(rng.randint(1, 3)):
                result = with_session(session).delay(jobs.echo, seed)
                session.execute(insert(orders).values(id=result.id, state="paid"))
            if rng.random() < 0.2:
                session.rollback()
            else:
                session.commit()


def submit_async(url: str, seed: int) -> None:
    asyncio.run(_submit_async(url.replace("postgresql:", "postgresql+psycopg:"), seed))


async def _submit_async(url: str, seed: int) -> None:
    engine, rng = create_async_engine(url), random.Random(seed)
    while True:
        async with AsyncSession(engine) as session:
            result = with_session(session).delay(jobs.echo, seed)
            await session.execute(insert(orders).values(id=result.id, state="paid"))
            await (session.rollback() if rng.random() < 0.2 else session.commit())
        await asyncio.sleep(0)


def relay(url: str, _: int) -> None:
    Relay(app, SqlStore.at(url), poll_seconds=0.01).run()


def killed(child: Callable[[str, int], None], url: str, seed: int) -> str:
    """Fork a process that runs ``child``, and kill it; return where."""
    rng = random.Random(seed)
    point, number, after_seconds = rng.choice(POINTS), rng.randint(1, 5), rng.uniform(0.02, 0.25)
    leaves_rows = child is not relay and rng.random() < 0.5
    if (child is relay and point in POINTS[1:3]) or (leaves_rows and point in POINTS[3:]):
        point = "random"
    pid = os.fork()
    if pid == 0:
        try:
            if leaves_rows:
                promptly.PromptRelay.note = lambda *_: None  # type: ignore[method-assign]
                async_prompt.note = lambda *_: None
            place(point, number)
            child(url, seed)
        finally:
            os._exit(3)
    deadline = time.monotonic() + (after_seconds if point == "random" else 1.0 if child is relay else 10.0)
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return point
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return point if point == "random" else "in time"


def main(url: str, kills: int, seed: int) -> None:
    sql_store.CLAIM_SECONDS = 1
    app.finalize()
    counts: dict[str, int] = {}
    for number in range(kills):
        child = relay if number % 2 else submit_async if number % 4 and url.startswith("postgresql") else submit
        where = f"{child.__name__}: {killed(child, url, seed + number)}"
        counts[where] = counts.get(where, 0) + 1
    for where, count in sorted(counts.items()):
        sys.stdout.write(f"{count:4} {where}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
