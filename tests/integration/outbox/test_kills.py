"""kill -9 of submitting processes and of relays, at random moments and at the ones that matter."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import select

from taskapp.outbox.relay import Relay
from taskapp.outbox.sql_store import SqlStore
from tests.integration.outbox.killed import orders
from tests.support import RedisServer, clean_environment, eventually, run_python

SEED = 20_261_130


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_each_committed_task_is_queued_once_whatever_is_killed(
    kills: int, url: str, store: SqlStore, app: Celery, redis_server: RedisServer, tmp_path: Path,
    queued: Callable[..., Sequence[str]],
) -> None:  # fmt: skip
    orders.metadata.drop_all(store.engine)
    orders.metadata.create_all(store.engine)
    env = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path), PYTHONPATH=str(Path.cwd())
    )
    argv = ("-m", "tests.integration.outbox.killed", url, str(kills), str(SEED))
    done = run_python(*argv, env=env, cwd=Path.cwd(), timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    sys.stdout.write(done.stdout)

    eventually(lambda: Relay(app, store).drain() == 0 and store.backlog().waiting == 0)
    with store.engine.connect() as connection:
        committed = set(connection.scalars(select(orders.c.id)))
    assert committed
    assert Counter(queued()) == dict.fromkeys(committed, 1)
