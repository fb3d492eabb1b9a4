"""A worker as the first process of a container, and one whose output nobody reads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from celery import Celery

from taskapp.engine.dead_letters import DeadLetters
from taskapp.redis.keys import Keys
from tests.integration import ending
from tests.support import Process, RedisServer, clean_environment, eventually

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
WORKER = [sys.executable, "-m", "celery", "-A", "taskapp", "worker", "-n", "w1@%h", "-c", "2", "-l", "INFO"]


def may_unshare() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


@pytest.fixture
def environment(tmp_path: Path, redis_server: RedisServer) -> dict[str, str]:
    return clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path / "data"), TASKAPP_INCLUDE=ending.__name__,
        TASKAPP_DRAIN_SECONDS="2", TASKAPP_CRASH_LIMIT="1", PYTHONPATH=str(Path.cwd()), TASKAPP_CHILD_PROCESSES="1",
    )  # fmt: skip


@pytest.fixture
def first(tmp_path: Path, environment: dict[str, str]) -> Iterator[Process]:
    if not may_unshare():
        pytest.skip("no right to make a namespace of processes")
    process = Process([*UNSHARE, *WORKER], tmp_path / "first.log", environment, tmp_path)
    eventually(lambda: " ready." in process.output() or process.returncode is not None)
    yield process
    process.close()


def first_of(process: Process) -> psutil.Process:
    return psutil.Process(process.pid).children()[0]


def test_as_first_process_it_reaps_orphans_and_no_child_that_somebody_waits_for(first: Process, app: Celery) -> None:
    for _ in range(3):
        # An orphan that ends a moment after its parent; and the code of a child, which subprocess waits for.
        assert app.signature("runs", ("sleep 0.2 & exit 3",), queue="default").apply_async().get(timeout=20) == 3
    assert app.signature("runs.child", ("exit 4",), queue="default").apply_async().get(timeout=20) == 4

    def zombies() -> list[psutil.Process]:
        family = first_of(first).children(recursive=True)
        return [process for process in family if process.status() == psutil.STATUS_ZOMBIE]

    eventually(lambda: not zombies())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_first_process_it_drains_and_ends_with_the_workers_code(
    first: Process, app: Celery, number: signal.Signals
) -> None:
    assert app.signature("runs", ("exit 0",), queue="default").apply_async().get(timeout=20) == 0

    first_of(first).send_signal(number)

    assert first.wait(20) == 0


@pytest.mark.parametrize("task", ["ends.first", "ends.first.child"])
def test_a_task_that_ends_the_first_process_is_a_suspect(
    first: Process, app: Celery, letters: DeadLetters, task: str
) -> None:
    result = app.signature(task, queue="default").apply_async()

    assert first.wait(20) == 0
    assert [(letter.id, letter.reason, letter.crashes) for letter in letters.find()] == [(result.id, "crashed", 1)]


@pytest.mark.quick("kill*")
@pytest.mark.parametrize("command", ["kill -TERM 1", "/bin/kill -TERM 1"])
def test_a_signal_to_the_first_process_by_another_in_its_container_never_counts(
    first: Process, app: Celery, letters: DeadLetters, redis_server: RedisServer, command: str
) -> None:
    result = app.signature("long", queue="default").apply_async()
    eventually(lambda: result.state == "STARTED")
    inside = ["nsenter", "--target", str(first_of(first).pid), "--pid", "--mount"]

    subprocess.run([*inside, "sh", "-c", command], check=True)

    assert first.wait(20) == 0
    assert letters.find() == []
    assert redis_server.client.llen(Keys().ready("default")) == 1


def test_an_exit_in_a_task_below_the_first_process_fails_the_task_alone(first: Process, app: Celery) -> None:
    result = app.signature("exits.plainly", queue="default").apply_async()

    assert "TaskExited" in repr(result.get(timeout=20, propagate=False))
    assert first.returncode is None


def test_a_worker_whose_output_nobody_reads_works_and_drains(environment: dict[str, str], app: Celery) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    node = subprocess.Popen(WORKER, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, env=environment)
    os.close(writing)
    try:
        assert app.signature("runs", ("exit 0",), queue="default").apply_async().get(timeout=30) == 0
        node.terminate()
        assert node.wait(20) == 0
    finally:
        node.kill()
        node.wait()
