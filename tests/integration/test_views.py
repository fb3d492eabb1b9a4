"""What commands show: whole ids on terminals of every width and in pipes, and JSON of everything."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from celery import Celery

from taskapp.cli.main import COMMANDS, taskapp
from taskapp.engine.dead_letters import DeadLetters
from tests.support import Process, RedisServer, clean_environment, eventually, run_python

SHOWN_AS_JSON = {
    "dead list", "dead show", "delayed list", "doctor", "history search", "history show", "history status",
    "circuits list", "limits list", "outbox list", "outbox status", "redis status", "schedules calendar",
    "schedules list", "schedules next", "schedules show", "task logs", "task show", "top",
}  # fmt: skip
WITHOUT_DATA = {
    "demo", "up", "exporter", "health", "dead replay", "dead purge", "delayed cancel", "delayed reschedule",
    "circuits close", "limits set", "limits clear", "limits pause", "history run", "history prune",
    "redis start", "redis stop", "schedules add", "schedules edit", "schedules export",
    "schedules import", "schedules pause", "schedules remove", "schedules resume", "schedules run-now",
    "schedules backfill", "outbox create", "outbox remove", "outbox retry", "outbox run",
}  # fmt: skip
"""Those that change something or run on, ``export``, which prints JSON anyway, and ``health``, which is no Click."""


def all_commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(taskapp)
    for name in COMMANDS:
        command = taskapp.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {each}", inner) for each, inner in command.commands.items())
        else:
            yield name, command


def test_each_command_that_shows_data_has_json() -> None:
    commands = dict(all_commands())
    with_json = {name for name, command in commands.items() if any("--json" in each.opts for each in command.params)}

    assert {*commands} == SHOWN_AS_JSON | WITHOUT_DATA
    assert with_json - {"schedules backfill"} == SHOWN_AS_JSON


@pytest.fixture
def deployment(
    tmp_path: Path, redis_server: RedisServer, app: Celery, letters: DeadLetters, worker: Callable[..., Process]
) -> dict[str, str]:
    """A server with a dead letter, a delayed task and a schedule; the variables that lead to it."""
    node = worker("-c", "1")
    app.send_task("taskapp.add", ("x" * 200, 1), task_id="dead-" + "d" * 31)
    eventually(lambda: [*letters.find(None, None, None, 1)])
    app.send_task("taskapp.add", (2, 3), countdown=3_600, task_id="late-" + "l" * 31)
    node.terminate()
    return clean_environment(TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path))


def piped(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "taskapp", *arguments, env=environment)


def on_terminal(environment: dict[str, str], width: int, *arguments: str) -> list[str]:
    """Return the lines that a command writes to a terminal of this width, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    argv = [sys.executable, "-m", "taskapp", *arguments]
    environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(argv, env=environment, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL) as running:
        os.close(theirs)
        written = b""
        try:
            while some := os.read(ours, 65_536):
                written += some
        except OSError:  # EIO: the other side is closed
            pass
        running.wait(60)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", written.decode()).splitlines()


def test_ids_are_whole_at_every_width_and_pipes_get_everything(deployment: dict[str, str]) -> None:
    commands = {("dead", "list"): "dead-" + "d" * 31, ("delayed", "list"): "late-" + "l" * 31}
    for command, task_id in commands.items():
        for width in (60, 80, 120):
            lines = on_terminal(deployment, width, *command)
            assert [line for line in lines if task_id in line], (command, width, lines)
            assert max(map(len, lines)) <= width, (command, width, lines)
        [_, row, _] = piped(deployment, *command).stdout.splitlines()
        assert task_id in row
    error = json.loads(piped(deployment, "dead", "list", "--json").stdout)["error"]
    assert error in piped(deployment, "dead", "list").stdout


def test_a_dead_letter_and_top_as_json(deployment: dict[str, str]) -> None:
    listed = json.loads(piped(deployment, "dead", "list", "--json").stdout)
    shown = json.loads(piped(deployment, "dead", "show", "default/1", "--json").stdout)
    assert {*shown} == {*listed} - {"raw_base64"} | {"args", "kwargs", "unreadable", "message_bytes"}
    assert (shown["letter"], shown["id"], shown["args"]) == ("default/1", "dead-" + "d" * 31, ["x" * 200, 1])

    seen = json.loads(piped(deployment, "top", "--json", "--every", "0.2").stdout)
    assert {"at", "queues", "nodes", "task_types"} == {*seen}
    [default] = [queue for queue in seen["queues"] if queue["name"] == "default"]
    assert (default["dead"], default["delayed"]) == (1, 1)
