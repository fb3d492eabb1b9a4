from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.connection import Connection

from taskapp.engine.completions import Finished
from taskapp.engine.settlement import EndOfTask
from taskapp.engine.task_notes import Notes, Step
from taskapp.errors.history import HistoryAway, HistoryEmpty
from taskapp.monitor.history import History
from taskapp.redis.link import Link
from tests.support import Node, Process, RedisServer, clean_environment, eventually, run_python

JOBS = "tests.integration.history.jobs"
Start = Callable[..., Process]


class Deployment:
    """Nodes that report every finished task, and writers of a history."""

    def __init__(self, directory: Path, server: RedisServer, worker: Start) -> None:
        self.directory, self.server, self._worker = directory, server, worker
        self.url = f"sqlite:///{directory}/history.sqlite"
        self.env = {"TASKAPP_HISTORY": "true", "TASKAPP_INCLUDE": JOBS, "TASKAPP_LEASE_SECONDS": "2"}
        self._started: list[Process] = []

    @property
    def history(self) -> History:
        return History(self.url)

    def node(self, *options: str, **more: str) -> Process:
        return self._worker(*options, **{**self.env, **more})

    def variables(self) -> dict[str, str]:
        return clean_environment(
            TASKAPP_BROKER_URL=self.server.url, TASKAPP_HISTORY_URL=self.url, TASKAPP_DATA_DIR=str(self.directory),
            PYTHONPATH=os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
            TASKAPP_INCLUDE=JOBS,
        )  # fmt: skip

    def writer(self, name: str = "writer", **more: str) -> Process:
        argv = [sys.executable, "-m", "taskapp", "history", "run"]
        variables = {**self.variables(), **more}
        self._started.append(Node(argv, self.directory / f"{name}.log", variables, cwd=self.directory))
        return self._started[-1]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``taskapp history …`` to its end."""
        return run_python("-m", "taskapp", "history", *arguments, env=self.variables(), cwd=self.directory)

    def python(self, text: str, **more: str) -> list[Any]:
        """Run Python with the jobs at hand; it prints JSON, one value a line."""
        head = f"import json\nfrom {JOBS} import *\n"
        done = run_python("-c", head + text, env={**self.variables(), **more}, cwd=self.directory, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def submit(self, expression: str) -> Any:
        """Return the id of the task, or the ids of the tasks, that ``expression`` submits."""
        text = (
            f"sent = {expression}\nprint(json.dumps([one.id for one in sent] if isinstance(sent, list) else sent.id))"
        )
        return self.python(text)[0]

    def ends_of(self, task_id: str, count: int = 1) -> list[Finished]:
        """Wait until that many ends of the task are written."""

        def written() -> list[Finished]:
            try:
                found = self.history.get(task_id)
            except (HistoryEmpty, HistoryAway):
                return []
            return found if len(found) >= count else []

        found = eventually(written, within_seconds=40)
        assert len(found) == count
        return found

    def end_of(self, task_id: str) -> Finished:
        """Wait until the one end of the task is written."""
        return self.ends_of(task_id)[0]

    def waiting(self) -> int:
        """How many records wait in Redis."""
        return self.server.client.xlen("taskapp:finished")

    def server_bytes(self) -> list[bytes]:
        """What the records hold that wait in Redis."""
        with redis.Redis(port=self.server.port) as client:
            return [b"".join(fields.values()) for _, fields in client.xrange("taskapp:finished")]

    def close(self) -> None:
        for process in self._started:
            process.kill()


@pytest.fixture
def deployment(tmp_path: Path, redis_server: RedisServer, worker: Start) -> Iterator[Deployment]:
    made = Deployment(tmp_path, redis_server, worker)
    yield made
    made.close()


def tell(server: RedisServer, *ends: EndOfTask) -> None:
    """Report finished tasks as a node does whose messages were settled before."""
    notes = Notes(Link(lambda: Connection(port=server.port, protocol=2)), "", 60)
    steps: list[Step] = [("H", str(end.most), end.packed) for end in ends]
    for start in range(0, len(steps), 200):
        notes.write(uuid.uuid4().hex, 1, steps[start : start + 200], 10)
