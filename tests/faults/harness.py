"""Starts what a row needs, submits, counts, kills, and leaves nothing behind."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import psutil

from taskapp.engine.dead_letters import DeadLetter, DeadLetters
from tests.faults.execution_log import LOG_VARIABLE, WORKER_VARIABLE
from tests.faults.outcome import Judge, Outcome, quantile
from tests.faults.processes import FaultyRedis, Pool, Worker
from tests.faults.producers import ROOT, Submission, Submitter, acknowledged
from tests.faults.remains import messages_left, without_result
from tests.faults.runs import Runs
from tests.faults.submitter import APP_VARIABLE
from tests.support import Process, clean_environment, eventually, processes_of, start_worker

TASKS = "tests.faults.fault_tasks"
ASYNC_TASKS = "tests.faults.async_tasks"
NEWER_TASKS = "tests.faults.newer_tasks"
GRACE_SECONDS = 5.0
"""What recovery may take beyond the lease."""
STOCK_PATIENCE_SECONDS = 150.0
"""How long a row waits for stock Celery to bring a task back."""

ALL_LETTERS = 100_000
DELAY_BEFORE_REAP_SECONDS = 1.0
"""Play a repeat this much longer than the lease before it is said that there was none."""

Engine = Literal["taskapp", "stock"]
SizeName = Literal["smoke", "quick", "full"]
Value = TypeVar("Value")


@cache
def default_pool_has_loop() -> bool:
    """Return whether the pool of ``celery -A taskapp worker`` runs coroutines."""
    ask = "from taskapp.celery import app; print(app.conf.worker_pool)"
    environment = clean_environment(PYTHONPATH=str(ROOT), TASKAPP_BROKER_URL="redis://127.0.0.1:1/0")
    answer = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    return "prefork" not in answer.stdout


class Bench:
    """One Redis of its own, the workers and producers of one row, and the log of executions."""

    def __init__(
        self,
        directory: Path,
        binary: str,
        size: SizeName,
        seed: int,
        engine: Engine = "taskapp",
        pool: Pool = "default",
    ) -> None:
        self.directory, self.binary, self.size, self.engine, self.pool = directory, binary, size, engine, pool
        self.random = random.Random(seed)
        self.judge = Judge()
        self.runs = Runs(directory / "executions.log")
        self.lease_seconds = 15.0 if size == "full" else 3.0
        self.workers: list[Worker] = []
        self._submitters: list[Submitter] = []
        self._redis: FaultyRedis | None = None
        self.results: FaultyRedis | None = None
        """The server of the results, where a row gave them one of their own."""
        self._servers: list[FaultyRedis] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for submitter in self._submitters:
            submitter.kill()
        for worker in self.workers:
            worker.process.kill()
        for server in self._servers:
            server.kill()
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
        self._redis = self.start_server("redis", variables)
        return self._redis

    def start_results(self) -> FaultyRedis:
        """Start a server for the results alone; workers and producers started later use it."""
        self.results = self.start_server("results", {})
        return self.results

    def start_server(self, name: str, variables: Mapping[str, str]) -> FaultyRedis:
        """Start another server, called ``name``, with ``variables`` in its environment."""
        home = self.directory / name
        home.mkdir()
        self._servers.append(FaultyRedis(self.binary, home, variables))
        return self._servers[-1]

    @property
    def kinds(self) -> tuple[str, ...]:
        """What to append to the name of a pacing task: nothing, and where the worker has a loop ``_async``."""
        return ("", "_async") if self._has_loop else ("",)

    @property
    def _has_loop(self) -> bool:
        return self.engine == "taskapp" and self.pool == "default" and default_pool_has_loop()

    def start_worker(
        self, name: str, *options: str, pool: Pool | None = None, concurrency: int = 2, include: str = TASKS,
        ready: bool = True, limit_bytes: int | None = None, variables: Mapping[str, str] | None = None,
        broker_url: str | None = None,
    ) -> Worker:  # fmt: skip
        """Start one worker, of the pool the row is played with or of ``pool``.

        With ``ready``, return when it takes tasks; ``limit_bytes`` bounds its address space; ``broker_url`` leads
        it to the row's server by another way.
        """
        pool = pool or self.pool
        if pool == "default" and self._has_loop:
            include = f"{include},{ASYNC_TASKS}"
        life = f"{name}-{len(self.workers)}"
        environment = {**self._environment(), WORKER_VARIABLE: life, "TASKAPP_INCLUDE": include, **(variables or {})}
        arguments = (*(() if pool == "default" else ("-P", pool)), "-c", str(concurrency), *options)
        if self.engine == "stock":
            process = self._start_stock(life, arguments, environment)
        else:
            process = start_worker(
                self.directory, broker_url or self.redis.url, *arguments, name=life, wait=False, **environment
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
        own_results = {"TASKAPP_RESULT_URL": self.results.url} if self.results else {}
        return {
            **own_results,
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
        # Next to the log of executions: together they show how each task ended.
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
            sent=sum(len(one.tasks) for one in submissions), acknowledged=len(known), ran=len(ended), lost=len(lost),
            ran_twice=len(self.runs.repeated({task_id for one in submissions for task_id in one.tasks})),
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
        results = self.results.client if self.results else client
        self.judge.require_none(without_result(results, ended), "ran and left no result")
