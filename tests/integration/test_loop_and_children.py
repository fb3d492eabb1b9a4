"""What a node's children have of it, and what its lease hangs on: real workers of every pool."""

from __future__ import annotations

import textwrap
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from celery import Celery

from tests.support import Process, RedisServer, eventually, start_worker

LEASE_SECONDS = "3"
JOBS = """
    import os, time
    from pathlib import Path
    from billiard.pool import Pool
    from celery import shared_task, signals

    @shared_task(cpu_bound=True)
    def pid_of_child():
        return os.getpid()

    @shared_task
    def begin(path, seconds):
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(seconds)

    @shared_task
    def harmless():
        pass

    create = Pool._create_worker_process

    def create_or_fail(pool, number, *args, **kwargs):
        # As where the descriptors end between one child and the next.
        if number and Path(os.environ.get("SHORT", "no such file")).exists():
            raise OSError(24, "none left")
        return create(pool, number, *args, **kwargs)

    Pool._create_worker_process = create_or_fail

    @signals.task_received.connect
    def hold_up_the_loop(request, **_):
        # On the loop's own thread, and no task's code.
        if request.name.endswith("harmless") and os.environ.get("STANDS_STILL"):
            time.sleep(120)
"""


@pytest.fixture
def jobs(tmp_path: Path) -> str:
    (tmp_path / "looped_jobs.py").write_text(textwrap.dedent(JOBS))
    return "looped_jobs"


def sockets_of(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return {target for target in found if target.startswith("socket:")}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
@pytest.mark.parametrize("pool", ["default", "prefork"])
def test_children_hold_no_socket_of_their_parent(
    app: Celery, redis_server: RedisServer, tmp_path: Path, jobs: str, pool: str
) -> None:
    options = () if pool == "default" else ("-P", pool)
    worker = start_worker(tmp_path, redis_server.url, *options, TASKAPP_INCLUDE=jobs, TASKAPP_CHILD_PROCESSES="2")
    try:
        results = [app.send_task(f"{jobs}.pid_of_child") for _ in range(4)]
        pids = {result.get(timeout=20) for result in results}
        children = {child.pid for child in psutil.Process(worker.pid).children(recursive=True)}
        assert pids <= children

        assert sockets_of(worker.pid)
        for pid in children:
            assert not sockets_of(pid) & sockets_of(worker.pid)
    finally:
        worker.kill()


@pytest.mark.quick("default")
@pytest.mark.parametrize("pool", ["default", "prefork"])
def test_a_node_whose_loop_stands_still_outside_of_a_task_loses_its_lease(
    app: Celery, redis_server: RedisServer, tmp_path: Path, jobs: str, pool: str
) -> None:
    options = () if pool == "default" else ("-P", pool)
    begun = tmp_path / "begun"

    def start(name: str, **variables: str) -> Process:
        return start_worker(
            tmp_path, redis_server.url, *options, name=name, TASKAPP_INCLUDE=jobs,
            TASKAPP_LEASE_SECONDS=LEASE_SECONDS, **variables,
        )  # fmt: skip

    first = start("first", STANDS_STILL="1")
    second = None
    try:
        app.send_task(f"{jobs}.begin", [str(begun), 120])
        eventually(lambda: begun.exists() and begun.read_text())
        app.send_task(f"{jobs}.harmless")
        second = start("second")

        eventually(lambda: len(begun.read_text().splitlines()) == 2, within_seconds=20)
        assert "is stuck although it runs no task" in first.output()
    finally:
        for worker in (first, second):
            if worker is not None:
                worker.kill()


def test_a_task_goes_back_while_no_child_process_can_be_started(
    app: Celery, redis_server: RedisServer, tmp_path: Path, jobs: str
) -> None:
    short = tmp_path / "short"
    short.touch()
    node = start_worker(tmp_path, redis_server.url, TASKAPP_INCLUDE=jobs, TASKAPP_CHILD_PROCESSES="2", SHORT=str(short))
    try:
        result = app.send_task(f"{jobs}.pid_of_child")
        eventually(lambda: node.output().count("could not start a child process: [Errno 24] none left") >= 2)
        eventually(lambda: psutil.Process(node.pid).children() == [])
        short.unlink()

        assert result.get(timeout=20) in [child.pid for child in psutil.Process(node.pid).children()]
        assert node.returncode is None
    finally:
        node.close()
