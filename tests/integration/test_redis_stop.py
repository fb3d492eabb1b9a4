"""``taskapp redis status`` and ``stop``: a server that is in use is not stopped without a word."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskapp import devredis
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from tests.support import Node, Process, clean_environment, eventually, run_python


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    data_dir = tmp_path / "data"
    devredis.ensure(data_dir)
    yield clean_environment(TASKAPP_DATA_DIR=str(data_dir), PYTHONPATH=str(Path.cwd()))
    devredis.stop(data_dir)


@pytest.fixture
def node(tmp_path: Path, environment: dict[str, str]) -> Iterator[Process]:
    argv = [sys.executable, "-m", "celery", "-A", "taskapp", "worker", "-n", "w1@here", "-c", "1", "-l", "INFO"]
    node = Node(argv, tmp_path / "node.log", environment, tmp_path)
    eventually(lambda: " ready." in node.output())
    connect = devredis.connections(tmp_path / "data")
    assert connect is not None
    link = Link(connect)
    eventually(lambda: link.command("ZCARD", Keys()("leases")))  # a node may say that it is ready a moment before
    link.close()
    yield node
    node.close()


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "taskapp", "redis", *arguments, env=environment)


def asked(environment: dict[str, str], answer: str) -> tuple[int, str]:
    """Run ``stop`` at a terminal where somebody types ``answer``."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "taskapp", "redis", "stop"]
    os.write(ours, answer.encode() + b"\n")
    with subprocess.Popen(argv, env=environment, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        said = run.communicate(timeout=60)[0].decode()
    os.close(theirs)
    os.close(ours)
    return run.returncode, said


def test_a_server_in_use_is_stopped_by_those_alone_who_say_so(
    node: Process, environment: dict[str, str], tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    refused = run(environment, "stop")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: the embedded Redis server is in use: node w1@here; ")
    assert "stop the nodes first, or use --yes" in refused.stderr

    code, said = asked(environment, "n")
    assert (code, "node w1@here; " in said, "stop it? [y/N]" in said) == (1, True, True), said
    assert devredis.running(data_dir) is not None
    assert asked(environment, "y")[0] == 0
    assert devredis.running(data_dir) is None


def test_yes_stops_a_server_in_use(node: Process, environment: dict[str, str], tmp_path: Path) -> None:
    assert run(environment, "stop", "--yes").returncode == 0
    assert devredis.running(tmp_path / "data") is None


def test_a_server_that_nobody_uses_is_stopped_without_a_question(environment: dict[str, str]) -> None:
    status = run(environment, "status", "--json")
    assert {*json.loads(status.stdout)} == {"url", "pid", "kind", "origin", "version", "data"}

    done = run(environment, "stop")
    assert (done.returncode, done.stderr) == (0, "")
    gone = run(environment, "status", "--json")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr.startswith("Error: the embedded Redis server does not answer")
