from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from taskapp.engine.completions import Finished
from taskapp.errors.history import HistoryAway, HistoryEmpty
from taskapp.monitor.history import History, Query
from taskapp.processes import Program, Supervisor, free_port
from tests.support import Process, clean_environment, eventually, processes_of

LONG_LIVED = "import time; print('here', flush=True); time.sleep(300)"


def program(name: str, code: str, ready_line: str = "") -> Program:
    return Program(name, (sys.executable, "-c", code), ready_line)


@contextmanager
def running(*programs: Program) -> Iterator[tuple[Supervisor, list[tuple[str, str]]]]:
    lines: list[tuple[str, str]] = []
    supervisor = Supervisor(list(programs), lambda name, line: lines.append((name, line)), dict(os.environ))
    supervisor.start()
    try:
        yield supervisor, lines
    finally:
        supervisor.stop(1.0)


def test_a_program_is_ready_when_it_says_so() -> None:
    with running(program("one", LONG_LIVED, "here"), program("two", "input()", "never")) as (supervisor, lines):
        eventually(lambda: "one" not in supervisor.not_ready())

        assert supervisor.not_ready() == ["two"]
        assert ("one", "here") in lines


def test_a_dead_program_is_started_again_and_said_so() -> None:
    with running(program("one", LONG_LIVED, "here")) as (supervisor, lines):
        eventually(lambda: not supervisor.not_ready())
        first = supervisor.pids()["one"]
        os.kill(first, signal.SIGKILL)
        eventually(supervisor.dead)

        supervisor.revive()

        eventually(lambda: not supervisor.not_ready())
        assert supervisor.pids()["one"] != first
        assert ("one", "ended with signal SIGKILL; restarting it in 0 s") in lines


def test_a_program_that_keeps_dying_is_not_started_in_a_tight_loop() -> None:
    with running(program("one", "raise SystemExit(3)")) as (supervisor, lines):
        for _ in range(2):
            eventually(supervisor.dead)
            supervisor.revive()
        eventually(supervisor.dead)
        supervisor.revive()

        assert ("one", "ended with exit code 3; restarting it in 1 s") in lines
        assert supervisor.dead() == {"one": 3}


def test_stopping_leaves_nothing_of_the_group_behind() -> None:
    family = (
        "import subprocess, sys, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)']);"
        "print('child', child.pid, flush=True); time.sleep(300)"
    )
    with running(program("stubborn", family, "child")) as (supervisor, lines):
        eventually(lambda: not supervisor.not_ready())
        child = int(lines[0][1].split()[1])

        supervisor.stop(0.2)

        assert ("stubborn", "did not stop within 0.2 s; killed") in lines
        eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_signal_is_not_lost_where_python_drops_exceptions_and_a_second_one_cuts_nothing_short() -> None:
    script = textwrap.dedent("""
        import os, signal
        from taskapp.processes import check_interrupted, stop_on_signals
        class Finalized:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
        stop_on_signals()
        one = Finalized()
        del one
        try:
            check_interrupted()
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGHUP)
            print("cleaned")
    """)

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)

    assert done.stdout == "cleaned\n", done.stderr
    assert "Exception ignored" in done.stderr


def test_a_port_in_use_is_not_given_out() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert free_port(port) != port


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "shop.py").write_text("from celery import shared_task\n@shared_task\ndef price(): return 1\n")
    (tmp_path / "pyproject.toml").touch()
    environment = clean_environment(
        TASKAPP_DATA_DIR=str(tmp_path / "data"), TASKAPP_INCLUDE="shop", TASKAPP_CANARY_SECONDS="1",
        TASKAPP_HISTORY="true",
        PYTHONPATH=os.pathsep.join([str(Path.cwd()), str(tmp_path)]),
    )  # fmt: skip
    argv = [
        sys.executable, "-m", "taskapp", "up", "--reload",
        "--flower-port", str(free_port()), "--exporter-port", str(free_port()),
    ]  # fmt: skip
    process = Process(argv, tmp_path / "up.log", environment, tmp_path)
    yield process
    process.close()


def price(environment: dict[str, str]) -> str:
    code = "import taskapp.celery; from shop import price; print(price.delay().get(timeout=20))"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.strip()


def written(history: History, task_type: str) -> list[Finished]:
    try:
        return history.search(Query(type=task_type)).tasks
    except (HistoryEmpty, HistoryAway):
        return []


def test_up_says_at_once_that_history_cannot_be_kept(tmp_path: Path) -> None:
    environment = clean_environment(TASKAPP_DATA_DIR=str(tmp_path), TASKAPP_HISTORY_URL="oracle://host/x")
    argv = [sys.executable, "-m", "taskapp", "up"]

    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert "'oracle' is not a supported database" in done.stderr
    assert done.stdout == ""
    assert processes_of(tmp_path) == []


@pytest.mark.slow
def test_up_runs_everything_restarts_the_dead_reloads_and_stops_clean(up: Process, tmp_path: Path) -> None:
    eventually(lambda: "node-1   | " in up.output() and " ready." in up.output(), within_seconds=40)
    assert price(up.env) == "1"
    eventually(lambda: "taskapp.canary" in up.output() and "succeeded" in up.output(), within_seconds=30)

    history = History(f"sqlite:///{tmp_path}/data/history.sqlite")
    eventually(lambda: written(history, "shop.price"), within_seconds=30)

    beat = next(p for p in psutil.Process(up.pid).children() if "beat" in p.cmdline())
    beat.kill()
    eventually(lambda: "beat     | ended with signal SIGKILL; restarting it in 0 s" in up.output())

    (tmp_path / "shop.py").write_text("from celery import shared_task\n@shared_task\ndef price(): return 2\n")
    eventually(lambda: "code changed; restarting workers and beat" in up.output())
    eventually(lambda: price(up.env) == "2", within_seconds=60)

    family = psutil.Process(up.pid).children(recursive=True)
    os.kill(up.pid, signal.SIGINT)
    assert up.wait(30) == 0
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert processes_of(tmp_path) == []
