from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from celery import Celery

from tests.integration.semantics import bodies, observed
from tests.support import Process, RedisServer, eventually, start_worker

BODIES = f"{bodies.__name__},{observed.__name__}"


@pytest.fixture(scope="package")
def redis_of_all(session_server: RedisServer) -> Iterator[RedisServer]:
    """One Redis for the whole suite: its workers live as long."""
    yield session_server
    session_server.client.flushall()


@pytest.fixture(scope="package")
def workers(
    redis_of_all: RedisServer, _web_process: Celery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Process]]:
    """A worker with the pool of its own for coroutines and threads, and one with child processes."""
    started = {}
    for name, options in {"own": ("-c", "4", "-Q", "default"), "prefork": ("-P", "prefork", "-Q", "low")}.items():
        started[name] = start_worker(
            tmp_path_factory.mktemp(name), redis_of_all.url, *options, name=name, wait=False,
            TASKAPP_INCLUDE=BODIES, TASKAPP_CHILD_PROCESSES="1",
        )  # fmt: skip
    for worker in started.values():
        eventually(lambda worker=worker: " ready." in worker.output() or worker.returncode is not None)
        assert worker.returncode is None, worker.output()
    yield started
    for worker in started.values():
        worker.close()


@pytest.fixture
def app(_web_process: Celery, redis_of_all: RedisServer) -> Celery:
    """Our app as a web process has it, over the suite's own workers."""
    _web_process.set_current()
    return _web_process


@dataclass
class Way:
    """One way to run a task type."""

    form: str
    queue: str
    worker: Process
    server: RedisServer
    app: Celery

    @property
    def is_async(self) -> bool:
        return self.form == "async"

    @property
    def has_children(self) -> bool:
        return self.queue == "low"

    def s(self, body: str, *args: Any, **kwargs: Any) -> Any:
        """The signature of a body in this form, to run on this worker."""
        return self.app.tasks[f"{body}.{self.form}"].s(*args, **kwargs).set(queue=self.queue)

    def send(self, body: str, *args: Any, **options: Any) -> Any:
        return self.s(body, *args).apply_async(**options)

    def run(self, body: str, *args: Any, **options: Any) -> Any:
        return self.send(body, *args, **options).get(timeout=20)

    def seen(self, key: str) -> list[Any]:
        """What was noted under a task's id, in order."""
        return [json.loads(line) for line in self.server.client.lrange(f"seen:{key}", 0, -1)]

    def sees(self, key: str, what: Any) -> list[Any]:
        """Wait until something was noted."""
        return eventually(lambda: (seen := self.seen(key)) and what in seen and seen)

    def knows_revoked(self, task_id: str) -> bool:
        """Whether every worker has heard that the task was revoked."""
        answers = self.app.control.inspect(timeout=1).revoked() or {}
        return len(answers) > 1 and all(task_id in revoked for revoked in answers.values())

    def failure(self, result: Any) -> Exception:
        """What a task failed with."""
        with pytest.raises(Exception) as caught:
            result.get(timeout=20)
        return caught.value


@pytest.fixture(params=["def on threads", "def on prefork", "async def"])
def way(request: pytest.FixtureRequest, workers: dict[str, Process], app: Celery, redis_of_all: RedisServer) -> Way:
    worker, queue = ("prefork", "low") if "prefork" in request.param else ("own", "default")
    return Way("async" if "async" in request.param else "def", queue, workers[worker], redis_of_all, app)


@pytest.fixture
def coroutines(workers: dict[str, Process], app: Celery, redis_of_all: RedisServer) -> Way:
    """``async def`` alone: what has no counterpart elsewhere."""
    return Way("async", "default", workers["own"], redis_of_all, app)


@pytest.fixture(scope="package")
def _events(_web_process: Celery, redis_of_all: RedisServer) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Every event of every task, by its id."""
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    is_over = threading.Event()

    def listen() -> None:
        with _web_process.connection() as connection:
            receiver = _web_process.events.Receiver(
                connection, handlers={"*": lambda event: seen[event.get("uuid", "")].append(event)}
            )
            while not is_over.is_set():
                try:
                    for _ in receiver.itercapture(limit=None, timeout=0.5, wakeup=False):
                        if is_over.is_set():
                            return
                except TimeoutError:
                    continue

    before = redis_of_all.client.pubsub_numpat()
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    eventually(lambda: redis_of_all.client.pubsub_numpat() > before)
    yield seen
    is_over.set()
    thread.join(5)


@pytest.fixture
def events(_events: dict[str, list[dict[str, Any]]]) -> Callable[[str, str], list[dict[str, Any]]]:
    """Wait for an event of a task; return all it had until then."""

    def of(task_id: str, last: str) -> list[dict[str, Any]]:
        eventually(lambda: any(event["type"] == last for event in tuple(_events[task_id])))
        # The submitter reports after submitting, which may be later.
        return [event for event in _events[task_id] if event["type"] != "task-sent"]

    return of
