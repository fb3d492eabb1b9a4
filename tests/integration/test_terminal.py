"""A worker in the foreground of a terminal that is closed."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from celery import Celery

from taskapp.engine.dead_letters import DeadLetters
from taskapp.redis.keys import Keys
from tests.integration import ending
from tests.support import RedisServer, clean_environment, eventually, leased_count

WORKER = [sys.executable, "-m", "celery", "-A", "taskapp", "worker", "-n", "w1@%h", "-c", "2", "-l", "INFO"]


@pytest.fixture
def in_terminal(tmp_path: Path, redis_server: RedisServer) -> Callable[..., tuple[subprocess.Popen[bytes], int]]:
    """Start a worker on a terminal of its own; return it and the other end of the terminal."""
    environment = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path / "data"), TASKAPP_INCLUDE=ending.__name__,
        TASKAPP_DRAIN_SECONDS="1", TASKAPP_CRASH_LIMIT="1", TASKAPP_LEASE_SECONDS="3", PYTHONPATH=str(Path.cwd()),
    )  # fmt: skip

    def start(*options: str) -> tuple[subprocess.Popen[bytes], int]:
        terminal, its = pty.openpty()
        # A session of its own, whose terminal this is: who leads it hears that the terminal is closed.
        node = subprocess.Popen(
            ["setsid", "--ctty", *WORKER, *options], stdin=its, stdout=its, stderr=its, env=environment
        )
        os.close(its)
        os.set_blocking(terminal, False)
        return node, terminal

    return start


def read(terminal: int) -> bool:
    """Take what was written, so that the worker can go on writing."""
    with suppress(BlockingIOError):
        os.read(terminal, 1 << 16)
    return True


@pytest.mark.quick("options0-*")
@pytest.mark.skipif(shutil.which("setsid") is None, reason="no program here that gives a terminal to a session")
@pytest.mark.parametrize(("options", "task"), [((), "long"), ((), "long.child"), (("-P", "prefork"), "long")])
def test_a_terminal_that_is_closed_drains_the_worker_in_it(
    in_terminal: Callable[..., tuple[subprocess.Popen[bytes], int]], app: Celery, letters: DeadLetters,
    redis_server: RedisServer, options: tuple[str, ...], task: str,
) -> None:  # fmt: skip
    node, terminal = in_terminal(*options)
    try:
        result = app.signature(task, queue="default").apply_async()
        eventually(lambda: read(terminal) and result.state == "STARTED")

        os.close(terminal)

        assert node.wait(20) == 0
        assert letters.find() == []
        assert (redis_server.client.llen(Keys().ready("default")), leased_count(redis_server)) == (1, 0)
    finally:
        node.kill()
        node.wait()
