"""Waiting for conditions, and real processes for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import ClassVar, TypeVar

import psutil
import redis

from tests.preloaded import THOROUGH, Forked, Preloaded, fits

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], within_seconds: float = 20.0, every_seconds: float = 0.02) -> Value:
    """Return the first true value of ``condition``; fail with its last one after ``within_seconds``."""
    deadline = time.monotonic() + within_seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_seconds} s; last value {value!r}"
        time.sleep(every_seconds)


def examples(count: int) -> int:
    """Return how many examples a generated test tries: ``count`` in ``make test-all``, a third of that otherwise."""
    return count if os.environ.get(THOROUGH) == "1" else max(1, count // 3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment of a process under test: nothing of the developer's settings reaches it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKAPP_", "CELERY_"))}
    return {**kept, "TASKAPP_ENV_FILE": "", "PYTHONUNBUFFERED": "1", **variables}


class Process:
    """One real process with its output in a file. Ends with its whole process group."""

    started: ClassVar[list[Process]] = []
    """All that may be running."""
    outlives_test = False
    """Whether it serves the tests that follow, too, though one of them started it."""

    def __init__(self, argv: list[str], log: Path, env: dict[str, str], cwd: Path | None = None) -> None:
        self.argv, self.log, self.env, self.cwd = argv, log, env, cwd
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._popen = self._launch(output.fileno())
        Process.started = [one for one in Process.started if one is not self and one.returncode is None] + [self]

    def _launch(self, output: int) -> subprocess.Popen[bytes] | Forked:
        return subprocess.Popen(
            self.argv, env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, within_seconds: float = 20.0) -> int:
        return self._popen.wait(within_seconds)

    def terminate(self, within_seconds: float = 20.0) -> int:
        if self.returncode is None:
            self._popen.terminate()
        return self.wait(within_seconds)

    def kill(self) -> None:
        """SIGKILL to the process and its children."""
        if self.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def close(self) -> None:
        if self.returncode is None:
            self._popen.terminate()
            try:
                self.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


QUICKLY = {"wanted": False}
"""Whether nodes start as quickly as they can: forked, and without asking their neighbours for a second."""
_preloaded: Preloaded | None = None


class Node(Process):
    """A node, or a command that runs on; forked where that makes no difference, see ``Preloaded``."""

    def _launch(self, output: int) -> subprocess.Popen[bytes] | Forked:
        if not QUICKLY["wanted"] or not fits(self.argv, self.env):
            return super()._launch(output)
        return preloaded().start(self.argv, self.env, self.cwd, output, output)


def preloaded() -> Preloaded:
    global _preloaded
    _preloaded = _preloaded or Preloaded()
    return _preloaded


def run_python(
    *arguments: str, env: dict[str, str], cwd: Path | None = None, timeout: float = 60, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m taskapp …`` or ``python -c …`` to its end, forked where that makes no difference."""
    argv = [sys.executable, *arguments]
    if not QUICKLY["wanted"] or not fits(argv, env):
        return subprocess.run(
            argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout, check=check,
        )  # fmt: skip
    with TemporaryFile() as out, TemporaryFile() as err:
        running = preloaded().start(argv, env, cwd, out.fileno(), err.fileno())
        try:
            code = running.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    done = subprocess.CompletedProcess(argv, code, *texts)
    if check:
        done.check_returncode()
    return done


def answers(client: redis.Redis) -> bool:
    """Return whether a Redis answers ``client``."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


class RedisServer:
    """A real server on a port of its own; ``start`` after ``kill`` or ``stop`` keeps port and data."""

    def __init__(self, binary: str, directory: Path) -> None:
        self.binary, self.directory, self.port = binary, directory, free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        # redis-py waits 5 s for an answer, which a busy machine may need.
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=30)

    def start(self) -> None:
        argv = [
            self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--appendonly", "yes", "--save", "",
        ]  # fmt: skip
        self.process = Process(argv, self.directory / "redis.log", clean_environment())
        eventually(self.answers)

    def answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1) as client:
            return answers(client)

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.close()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def heal(self) -> None:
        """Undo what a test did to the server."""
        if self.process.returncode is None:
            self.thaw()
        else:
            self.start()

    def close(self) -> None:
        self.heal()
        self.kill()


def leased_count(server: RedisServer) -> int:
    """How many messages nodes hold."""
    return sum(server.client.hlen(key) for key in server.client.scan_iter("taskapp:leased:*"))


def processes_of(directory: Path) -> list[psutil.Process]:
    """Living processes that run in ``directory`` or name it: a Redis server shows only its folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            where = [process.cwd(), *process.cmdline()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(directory) in part for part in where):
                found.append(process)
    return found


def start_worker(
    directory: Path,
    broker_url: str,
    *options: str,
    name: str = "w1",
    wait: bool = True,
    app: str = "taskapp",
    **env: str,
) -> Process:
    """Start ``celery -A APP worker``; with ``wait``, return when it takes tasks."""
    variables = clean_environment(TASKAPP_BROKER_URL=broker_url, TASKAPP_DATA_DIR=str(directory / "data"), **env)
    variables["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), str(directory), variables.get("PYTHONPATH", "")])
    argv = [
        sys.executable, "-m", "celery", "-A", app, "worker",
        "-n", f"{name}@%h", "--loglevel", "INFO", "-c", "2", *options,
        *(["--without-mingle"] if QUICKLY["wanted"] else []),
    ]  # fmt: skip
    worker = Node(argv, directory / f"{name}.log", variables, cwd=directory)
    if wait:
        eventually(lambda: " ready." in worker.output() or worker.returncode is not None)
        assert worker.returncode is None, worker.output()
    return worker


def start_flower(directory: Path, *options: str, **env: str) -> tuple[Process, str]:
    """Start ``celery -A taskapp flower`` in ``directory``; return it and its address when it listens."""
    port = free_port()
    variables = clean_environment(TASKAPP_DATA_DIR=str(directory / "data"), **env)
    variables["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), str(directory), variables.get("PYTHONPATH", "")])
    argv = [sys.executable, "-m", "celery", "-A", "taskapp", "flower", f"--port={port}", *options]
    flower = Node(argv, directory / f"flower-{port}.log", variables, directory)
    eventually(lambda: "Visit me" in flower.output() or flower.returncode is not None)
    assert flower.returncode is None, flower.output()
    return flower, f"http://127.0.0.1:{port}"
