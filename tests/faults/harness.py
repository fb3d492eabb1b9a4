"""Starts what a row needs, submits, counts, kills, and leaves nothing behind."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil
from redis.connection import Connection

from taskapp.broker.dead_letters import DeadLetter, DeadLetters
from taskapp.redis import Link
from tests.faults.execution_log import LOG_VARIABLE, WORKER_VARIABLE
from tests.faults.outcome import Judge, Outcome, quantile
from tests.faults.remains import messages_left, without_result
from tests.faults.runs import Runs
from tests.faults.submitter import APP_VARIABLE
from tests.support import Process, RedisServer, clean_environment, eventually, processes_of, start_worker

ROOT = Path(__file__).parents[2]
TASKS = "tests.faults.fault_tasks"
NEWER_TASKS = "tests.faults.newer_tasks"
GRACE_SECONDS = 5.0
"""What recovery may take beyond the lease."""
STOCK_PATIENCE_SECONDS = 150.0
"""How long a row waits for stock Celery to bring a task back."""

ALL_LETTERS = 100_000
DELAY_BEFORE_REAP_SECONDS = 1.0
"""Play a repeat this much longer than the lease before it is said that there was none."""

Engine = Literal["taskapp", "stock"]
Pool = Literal["prefork", "threads", "solo"]
SizeName = Literal["smoke", "quick", "full"]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Submission:
    """What came of one ``delay()``: acknowledged, or the error it raised. Times by CLOCK_MONOTONIC."""

    id: str
    sent_at: float
    answered_at: float
    countdown: float | None
    error: str | None
    message: str | None

    @property
    def acknowledged(self) -> bool:
        """Whether ``delay()`` returned."""
        return self.error is None

    @property
    def took_seconds(self) -> float:
        """How long ``delay()`` took."""
        return self.answered_at - self.sent_at

    @property
    def due_at(self) -> float:
        """When the task is due; at once where no countdown was given."""
        return self.sent_at + (self.countdown or 0.0)


def acknowledged(submissions: Iterable[Submission]) -> list[str]:
    """Return the ids of those that ``delay()`` returned for."""
    return [submission.id for submission in submissions if submission.acknowledged]


class FaultyRedis(RedisServer):
    """A server whose options and environment a row chooses; ``start`` takes them anew."""

    def __init__(self, binary: str, directory: Path, variables: Mapping[str, str]) -> None:
        self.options: dict[str, str] = {"appendfsync": "everysec", "auto-aof-rewrite-percentage": "0"}
        self.variables = dict(variables)
        super().__init__(binary, directory)

    def start(self) -> None:
        """Start the server, or start it again, and return when it answers."""
        options = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        argv = [
            self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory),
            "--appendonly", "yes", "--save", "", *options,
        ]  # fmt: skip
        self.process = Process(argv, self.directory / "redis.log", clean_environment(**self.variables))
        eventually(self.answers)

    @contextmanager
    def link(self) -> Iterator[Link]:
        """Lend a connection as the engine's own parts use it."""
        link = Link(partial(Connection, port=self.port, protocol=2, socket_timeout=30))
        try:
            yield link
        finally:
            link.close()

    @property
    def log_of_changes(self) -> Path:
        """The append-only file that is being written."""
        # Redis 6.2 has a single file.
        return max(self.directory.glob("appendonlydir/*.incr.aof"), default=self.directory / "appendonly.aof")


@dataclass
class Worker:
    """One life of one worker process."""

    name: str
    process: Process

    @property
    def ready(self) -> bool:
        """Whether it takes tasks."""
        return not self.exited and " ready." in self.process.output()

    @property
    def exited(self) -> bool:
        """Whether it has ended, by itself or killed."""
        return self.process.returncode is not None

    def settled(self) -> bool:
        """Say whether it has come to a state: takes tasks, or has ended."""
        return self.ready or self.exited

    @property
    def resident_bytes(self) -> int:
        """Memory of the main process, which is the one that holds messages."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


class Submitter:
    """A producer process; see ``tests.faults.submitter``."""

    def __init__(self, directory: Path, name: str, environment: dict[str, str]) -> None:
        with (directory / f"{name}.log").open("ab") as errors:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.submitter"], cwd=ROOT, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, text=True,
            )  # fmt: skip
        if self._answer().strip() != "ready":
            raise AssertionError(f"submitter {name} did not start: {(directory / f'{name}.log').read_text()[-2000:]}")

    def begin(
        self, task: str, options: list[dict[str, Any]], *, args: Iterable[Any] = (),
        per_second: float | None = None, at_once: bool = False,
    ) -> None:  # fmt: skip
        """Start to submit one ``task`` for each of ``options``: in turn, at a rate, or eight at once."""
        order = {"task": task, "options": options, "args": list(args), "per_second": per_second, "at_once": at_once}
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()

    def finish(self) -> list[Submission]:
        """Wait for what ``begin`` started and return what came of it."""
        return [Submission(**record) for record in json.loads(self._answer())]

    def submit(self, task: str, count: int = 1, *args: Any, **options: Any) -> list[Submission]:
        """Submit ``count`` times ``task(*args)`` with the same options."""
        self.begin(task, [options] * count, args=args)
        return self.finish()

    def kill(self) -> None:
        """SIGKILL to the producer."""
        self._popen.kill()
        self._popen.communicate()

    def _answer(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline()


class Bench:
    """One Redis of its own, the workers and producers of one row, and the log of executions."""

    def __init__(self, directory: Path, binary: str, size: SizeName, seed: int, engine: Engine = "taskapp") -> None:
        self.directory, self.binary, self.size, self.engine = directory, binary, size, engine
        self.random = random.Random(seed)
        self.judge = Judge()
        self.runs = Runs(directory / "executions.log")
        self.lease_seconds = 15.0 if size == "full" else 3.0
        self.workers: list[Worker] = []
        self._submitters: list[Submitter] = []
        self._redis: FaultyRedis | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for submitter in self._submitters:
            submitter.kill()
        for worker in self.workers:
            worker.process.kill()
        if self._redis is not None:
            self._redis.kill()
        # Children that left their group; they run in the row's own folder.
        for left in processes_of(self.directory):
            with suppress(psutil.Error):
                left.kill()

    def sized(self, smoke: Value, quick: Value, full: Value) -> Value:
        """Return the figure for this size."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.size]

    @property
    def bound_seconds(self) -> float:
        """How long recovery may take: lease + 5 s."""
        return self.lease_seconds + GRACE_SECONDS

    @property
    def patience_seconds(self) -> float:
        """How long to wait for tasks to come back before they are called lost."""
        return STOCK_PATIENCE_SECONDS if self.engine == "stock" else 4 * self.bound_seconds

    @property
    def redis(self) -> FaultyRedis:
        """The row's server, started at first use."""
        return self._redis or self.start_redis()

    def start_redis(self, **variables: str) -> FaultyRedis:
        """Start the row's server with ``variables`` in its environment."""
        home = self.directory / "redis"
        home.mkdir()
        self._redis = FaultyRedis(self.binary, home, variables)
        return self._redis

    def start_worker(
        self, name: str, *options: str, pool: Pool = "prefork", concurrency: int = 2, include: str = TASKS,
        ready: bool = True, limit_bytes: int | None = None, variables: Mapping[str, str] | None = None,
    ) -> Worker:  # fmt: skip
        """Start one worker; with ``ready``, return when it takes tasks; ``limit_bytes`` bounds its address space."""
        life = f"{name}-{len(self.workers)}"
        environment = {**self._environment(), WORKER_VARIABLE: life, "TASKAPP_INCLUDE": include, **(variables or {})}
        arguments = ("-P", pool, "-c", str(concurrency), *options)
        if self.engine == "stock":
            process = self._start_stock(life, arguments, environment)
        else:
            process = start_worker(
                self.directory, self.redis.url, *arguments, name=life, wait=False, **environment
            )  # fmt: skip
        if limit_bytes is not None:
            # Set from outside, so that the limit holds from the first moment tasks can run.
            psutil.Process(process.pid).rlimit(psutil.RLIMIT_AS, (limit_bytes, limit_bytes))
        worker = Worker(life, process)
        self.workers.append(worker)
        if ready:
            self.await_ready(worker)
        return worker

    def _start_stock(self, life: str, arguments: Iterable[str], environment: dict[str, str]) -> Process:
        argv = [
            sys.executable, "-m", "celery", "-A", "tests.faults.stock_app", "worker",
            "-n", f"{life}@%h", "--loglevel", "INFO", *arguments,
        ]  # fmt: skip
        variables = clean_environment(**{k: v for k, v in environment.items() if not k.startswith("TASKAPP_")})
        return Process(argv, self.directory / f"{life}.log", variables, cwd=self.directory)

    def await_ready(self, *workers: Worker) -> None:
        """Return when all ``workers`` take tasks.

        Raises:
            AssertionError: One exited, or is not ready within 60 s; with its last output.
        """
        for worker in workers:
            eventually(worker.settled, within_seconds=60, every_seconds=0.1)
            assert not worker.exited, f"{worker.name} exited: {worker.process.output()[-600:]}"

    def start_submitter(self, variables: Mapping[str, str] | None = None) -> Submitter:
        """Start one producer process."""
        name = f"submitter-{len(self._submitters)}"
        app = "taskapp.celery" if self.engine == "taskapp" else "tests.faults.stock_app"
        environment = {
            **self._environment(), APP_VARIABLE: app, "TASKAPP_BROKER_URL": self.redis.url,
            "TASKAPP_DATA_DIR": str(self.directory / "data"), **(variables or {}),
        }  # fmt: skip
        self._submitters.append(Submitter(self.directory, name, clean_environment(**environment)))
        return self._submitters[-1]

    def _environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            LOG_VARIABLE: str(self.runs.log),
            "FAULTS_STOCK_URL": self.redis.url,
            "TASKAPP_LEASE_SECONDS": str(self.lease_seconds),
        }

    def kill(self, worker: Worker) -> float:
        """SIGKILL to the whole process group of ``worker``; return when, by CLOCK_MONOTONIC."""
        killed_at = time.monotonic()
        worker.process.kill()
        return killed_at

    def require_alive(self, *workers: Worker) -> None:
        """Fail the row if one of ``workers`` exited."""
        for worker in workers:
            last_words = worker.process.output()[-300:] if worker.exited else ""
            self.judge.require(not worker.exited, f"{worker.name} exited {worker.process.returncode}: {last_words}")

    def dead_letters(self, queue: str | None = None) -> list[DeadLetter]:
        """Return the dead letters of ``queue``, or all, the latest first."""
        with self.redis.link() as link:
            return DeadLetters(link, "").find(queue=queue, limit=ALL_LETTERS)

    def await_settled(self) -> None:
        """Return when no message is left anywhere, or after the bound: a task's end is logged before it is settled."""
        with suppress(AssertionError):
            eventually(lambda: not messages_left(self.redis.client), self.bound_seconds, every_seconds=0.1)

    def watch_for_repeats(self) -> None:
        """Read on for longer than a lease, so that a run too many shows."""
        self.runs.watch(self.lease_seconds + DELAY_BEFORE_REAP_SECONDS)

    def outcome(
        self, submissions: Iterable[Submission], *, excused: Iterable[str] = (), recoveries: Iterable[float] = ()
    ) -> Outcome:
        """Count ``submissions`` and conclude; what was acknowledged and not ``excused`` must have come to its end."""
        submissions, recoveries = list(submissions), list(recoveries)
        # Beside the log of executions: together they show what became of each task.
        records = [json.dumps(asdict(submission)) + "\n" for submission in submissions]
        (self.directory / "submissions.jsonl").write_text("".join(records))
        self.runs.refresh()
        known = set(acknowledged(submissions))
        ended = self.runs.ended(known)
        lost = known - ended - set(excused)
        self.judge.require_none(lost, "acknowledged and lost")
        if self.engine == "taskapp":
            self._require_order(ended - set(excused))
        return Outcome(
            sent=len(submissions), acknowledged=len(known), ran=len(ended), lost=len(lost),
            ran_twice=len(self.runs.repeated({submission.id for submission in submissions})),
            recovery_p50_seconds=quantile(recoveries, 0.5),
            recovery_max_seconds=max(recoveries, default=None),
            passed=not self.judge.problems, notes=self.judge.notes,
        )  # fmt: skip

    def _require_order(self, ended: set[str]) -> None:
        """Fail the row if a message is left anywhere, or a task that ended left no result."""
        self.await_settled()
        client = self.redis.client
        left = {f"{key!r} {number}" for key, number in messages_left(client).items()}
        self.judge.require_none(left, "keys still hold messages")
        self.judge.require_none(without_result(client, ended), "ran and left no result")
