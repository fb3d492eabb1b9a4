"""Deployments to be watched: a Redis, an exporter, and the nodes and beats of one broker."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.support import Process, RedisServer, clean_environment, eventually, free_port

TELLS = {"TASKAPP_HISTORY": "true"}
QUEUES = "critical,high,default,low,bulk,later"


class Deployment:
    """All processes of one broker. Its name is the job Prometheus knows it by."""

    def __init__(self, name: str, redis: RedisServer, directory: Path) -> None:
        self.name, self.redis, self.directory = name, redis, directory
        self.mended = directory / "mended"
        """A file at whose coming the tasks no longer fail."""
        self.port = free_port()
        self._processes: dict[str, Process] = {}
        self._environment = clean_environment(
            TASKAPP_BROKER_URL=redis.url, TASKAPP_DATA_DIR=str(directory / "data"), TASKAPP_QUEUES=QUEUES,
            TASKAPP_LEASE_SECONDS="3", TASKAPP_CANARY_SECONDS="1", TASKAPP_DEAD_LETTERS_LIMIT="15",
            PYTHONPATH=str(Path.cwd()),
        )  # fmt: skip
        self.export()

    def __getitem__(self, name: str) -> Process:
        return self._processes[name]

    def export(self) -> None:
        self._run("exporter", "taskapp", "exporter", "--port", str(self.port))

    def worker(self, name: str, queues: str, *options: str, **env: str) -> None:
        """Start a node; ``ready`` waits for it."""
        command = ("celery", "-A", "taskapp", "worker", "-n", f"{name}@%h", "-c", "2", "-Q", queues, *options)
        self._run(name, *command, "--loglevel", "INFO", **{"TASKAPP_INCLUDE": "tests.alerts.tasks", **env})

    def beat(self) -> None:
        self._run("beat", "celery", "-A", "taskapp", "beat")

    def history(self) -> None:
        """Start the history writer for the nodes that report finished tasks."""
        self._run("history", "taskapp", "history", "run", **TELLS)

    def submit(self, code: str) -> None:
        """Run ``code`` as a web process would, with ``app`` and ``mended`` at hand."""
        lines = ("from taskapp.celery import app", "from tests.alerts import tasks", f"mended = {str(self.mended)!r}")
        self._call("-c", "\n".join((*lines, code)))

    def taskapp(self, *arguments: str) -> None:
        self._call("-m", "taskapp", *arguments)

    def fill(self) -> None:
        """Write to Redis more than it may keep, so that it throws keys away."""
        used = int(self.redis.client.info("memory")["used_memory"])
        self.redis.client.config_set("maxmemory-policy", "allkeys-lru")
        self.redis.client.config_set("maxmemory", used + 4_000_000)
        for number in range(80):
            self.redis.client.set(f"junk:{number}", "x" * 100_000)

    def ready(self) -> None:
        """Return when the exporter answers and every worker takes tasks."""
        eventually(self._answers, 60)
        for name, process in self._processes.items():
            if name not in ("exporter", "beat", "history"):
                eventually(lambda process=process: " ready." in process.output(), 60)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
        self.redis.close()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as response:
                return b"taskapp_broker_up 1.0" in response.read()
        except OSError:
            return False

    def _run(self, name: str, *command: str, **env: str) -> None:
        environment = {**self._environment, **env}
        log = self.directory / f"{name}.log"
        self._processes[name] = Process([sys.executable, "-m", *command], log, environment, self.directory)

    def _call(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, *arguments], env=self._environment, cwd=self.directory, check=True, timeout=60
        )  # fmt: skip
