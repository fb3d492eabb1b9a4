"""pytest-celery's containers as local processes: the same interface, no Docker engine."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from pytest_celery import CeleryWorkerContainer, RedisContainer

from tests.support import Process, clean_environment, free_port


class ProcessHandle:
    """What pytest-docker-tools asks of a Docker container object, answered for a process."""

    def __init__(self, name: str, argv: list[str], cwd: Path, env: dict[str, str]) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"{name}-{self.id[:6]}"
        self.attrs: dict[str, Any] = {
            "Config": {"Hostname": "127.0.0.1", "Env": []},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
            "HostConfig": {"PortBindings": {}},
        }
        self._env, self._cwd = env, cwd
        self._process = Process(argv, cwd / f"{self.name}.log", env, cwd)

    @property
    def status(self) -> str:
        return "running" if self._process.returncode is None else "exited"

    @property
    def pid(self) -> int:
        return self._process.pid

    def reload(self) -> None:
        """Docker would ask the engine; a process is asked each time."""

    def logs(self, **_: Any) -> bytes:
        return self._process.log.read_bytes()

    def kill(self, signal: str | int | None = None) -> None:
        number = _number(signal)
        if number == 9:
            self._process.kill()
        elif self._process.returncode is None:
            os.kill(self.pid, number)

    def stop(self, **_: Any) -> None:
        self._process.close()

    def restart(self, **_: Any) -> None:
        self.stop()
        self._process.start()

    def exec_run(self, command: str | list[str], **_: Any) -> tuple[int, bytes]:
        argv = shlex.split(command) if isinstance(command, str) else list(command)
        argv[0] = sys.executable if argv[0] == "python" else argv[0]
        done = subprocess.run(argv, env=self._env, cwd=self._cwd, capture_output=True)
        return done.returncode, done.stdout + done.stderr


def _number(given: str | int | None) -> int:
    if isinstance(given, int):
        return given
    return signal.Signals[given or "SIGKILL"].value


class _Ready:
    """Skips what looks at Docker networks; the wait for the ready line stays pytest-celery's."""

    def ready(self) -> bool:
        if self.status != "running":
            raise RuntimeError(f"{self.name} exited:\n{self.logs()[-2000:]}")
        return bool(self._wait_ready())

    def teardown(self) -> None:
        self._container.stop()


class RedisProcess(_Ready, RedisContainer):
    hostname = property(lambda self: "127.0.0.1")
    port = property(lambda self: self.redis_port)
    url = property(lambda self: f"redis://127.0.0.1:{self.redis_port}/{self.vhost}")
    host_url = url

    @classmethod
    def launch(cls, binary: str, cwd: Path) -> RedisProcess:
        port = free_port()
        argv = [binary, *cls.command()[1:], "--port", str(port), "--bind", "127.0.0.1", "--dir", str(cwd)]
        node = cls(ProcessHandle("redis", argv, cwd, clean_environment()))
        node.redis_port = port
        return node


class WorkerProcess(_Ready, CeleryWorkerContainer):
    @classmethod
    def launch(cls, cwd: Path, broker_url: str, result_url: str, name: str) -> WorkerProcess:
        env = clean_environment(
            TASKAPP_BROKER_URL=broker_url, TASKAPP_RESULT_URL=result_url, TASKAPP_DATA_DIR=str(cwd),
            TASKAPP_INCLUDE="tests.integration.shop", PYTHONPATH=str(Path.cwd()),
        )  # fmt: skip
        argv = [sys.executable, "-m", "celery", "-A", "taskapp", "worker", "-c", "2", "-l", "INFO", "-n", f"{name}@%h"]
        return cls(ProcessHandle("worker", argv, cwd, env))
