"""The ``celery`` commands as people type them, with a server of their own and with a URL."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import Node, Process, RedisServer, clean_environment, eventually, free_port, processes_of, run_python

READY = {"worker": " ready.", "beat": "beat: Starting", "flower": "Visit me at http://127.0.0.1:"}


class Commands:
    """Starts commands in one folder, which is also what is theirs to clean."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = clean_environment(
            TASKAPP_DATA_DIR=str(directory / "data"), PYTHONPATH=str(Path.cwd()), TASKAPP_CANARY_SECONDS="1"
        )
        self.started: list[Process] = []

    def celery(self, *arguments: str, **variables: str) -> Process:
        argv = [sys.executable, "-m", "celery", "-A", "taskapp", *arguments]
        log = self.directory / f"{arguments[0]}-{len(self.started)}.log"
        self.started.append(Node(argv, log, {**self.environment, **variables}, self.directory))
        return self.started[-1]

    def taskapp(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_python("-m", "taskapp", *arguments, env=self.environment, cwd=self.directory)


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path)
    yield commands
    for process in commands.started:
        process.close()
    commands.taskapp("redis", "stop", "--yes")


def start_all(commands: Commands, **variables: str) -> int:
    """Start worker, beat and Flower at once; return Flower's port when all are ready."""
    port = free_port()
    started = {
        "worker": commands.celery("worker", "-c", "1", "-l", "INFO", **variables),
        "beat": commands.celery("beat", "-l", "INFO", **variables),
        "flower": commands.celery("flower", f"--port={port}", **variables),
    }
    for name, process in started.items():
        eventually(lambda p=process, n=name: READY[n] in p.output() or p.returncode is not None, within_seconds=40)
        assert process.returncode is None, process.output()
    eventually(
        lambda: "Task taskapp.canary" in started["worker"].output() and "succeeded" in started["worker"].output()
    )
    return port


def test_three_commands_started_at_once_share_one_server_of_their_own(commands: Commands) -> None:
    port = start_all(commands)

    announced = [line for process in commands.started for line in process.output().splitlines() if "started" in line]
    assert len([line for line in announced if "server.sock, data in" in line]) == 1, announced
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/workers").status == 200
    assert "redis" in commands.taskapp("redis", "status").stdout
    servers = processes_of(commands.directory / "data")
    assert len(servers) == 1
    assert commands.taskapp("redis", "stop", "--yes").returncode == 0
    assert psutil.wait_procs(servers, timeout=20)[1] == []


def test_with_a_broker_url_no_server_is_started(commands: Commands, redis_server: RedisServer) -> None:
    start_all(commands, TASKAPP_BROKER_URL=redis_server.url)

    assert not any("started redis" in process.output() for process in commands.started)
    assert not list((commands.directory / "data").rglob("appendonlydir"))


def test_flower_is_read_only_without_a_login(commands: Commands, redis_server: RedisServer) -> None:
    port = start_all(commands, TASKAPP_BROKER_URL=redis_server.url)

    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/worker/shutdown/celery@x", data=b"")
    assert refusal.value.code in (401, 403)


def test_embedded_never_refuses_with_a_sentence(commands: Commands) -> None:
    worker = commands.celery("worker", TASKAPP_EMBEDDED="never")

    assert worker.wait(30) == 1
    assert "TASKAPP_EMBEDDED" in worker.output()
    assert "TASKAPP_BROKER_URL" in worker.output()
    assert "Traceback" not in worker.output()


@pytest.mark.quick("prefork")
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_every_pool_runs_tasks(commands: Commands, redis_server: RedisServer, pool: str) -> None:
    worker = commands.celery("worker", "-P", pool, "-c", "1", "-l", "INFO", TASKAPP_BROKER_URL=redis_server.url)
    eventually(lambda: READY["worker"] in worker.output(), within_seconds=40)
    code = f"from taskapp.tasks import add; print(add.delay(1, 2).get(timeout=20), {pool!r})"
    variables = {**commands.environment, "TASKAPP_BROKER_URL": redis_server.url}

    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=40)

    assert done.stdout == f"3 {pool}\n", done.stderr


def test_a_misspelt_command_is_answered_with_the_likeliest_one(commands: Commands) -> None:
    done = commands.taskapp("dmeo")

    assert done.returncode == 2
    assert "no command 'dmeo'; did you mean 'demo'?" in done.stderr
    assert "exporter" in commands.taskapp("--help").stdout
