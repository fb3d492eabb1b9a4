"""Tasks that end their node in any way: at most three runs, then a dead letter, and a result for the caller."""

from __future__ import annotations

import contextlib
import time

from tests.faults.ending_tasks import FROM_A_CHILD, WAYS
from tests.faults.final_results import stored
from tests.faults.harness import ASYNC_TASKS, TASKS, Bench
from tests.faults.outcome import Outcome
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission, Submitter, acknowledged
from tests.support import eventually

FAULT = "tasks that end their node"
MOST_RUNS = 3
INCLUDE = f"{TASKS},{ASYNC_TASKS},tests.faults.ending_tasks"
VARIABLES = {"TASKAPP_DRAIN_SECONDS": "1", "TASKAPP_MAX_MEMORY_MB": "300", "TASKAPP_CHILD_PROCESSES": "1"}
ENDING_SECONDS = 5.0
EXIT_SECONDS = 30.0
"""How long a node may take to start, and to end by what it has begun."""


def play(bench: Bench) -> Outcome:
    """Let each way end nodes which are started again, and each exit that ends none pass by."""
    producer = bench.start_submitter()
    sent = _play_exits(bench, producer)
    for task, pool, way in _plays(bench):
        sent += _play_end(bench, producer, task, pool, way)
    sent += _play_outsider(bench, producer)
    return bench.outcome(sent)


def _plays(bench: Bench) -> list[tuple[str, Pool, str]]:
    """Return which task ends a node of which pool in which way."""
    some: list[tuple[str, Pool, str]] = [("faults.end", "default", "SIGTERM"), ("faults.end", "default", "memory")]
    more: list[tuple[str, Pool, str]] = [
        ("faults.end", "default", "SIGTERM of a child"),
        ("faults.end_async", "default", "SIGTERM"),
        ("faults.end_in_child", "default", next(iter(FROM_A_CHILD))),
        ("faults.end", "prefork", next(iter(FROM_A_CHILD))),
    ]
    pools: tuple[Pool, ...] = ("default", "threads", "solo")
    every = [
        *((task, "default", way) for task in ("faults.end", "faults.end_async") for way in WAYS),
        *(("faults.end", pool, way) for pool in pools[1:] for way in WAYS),
        *more[2:],
    ]  # fmt: skip
    return bench.sized(some, some + more, every)


def _start(bench: Bench, pool: Pool) -> Worker:
    return bench.start_worker("ended", pool=pool, concurrency=4, include=INCLUDE, variables=VARIABLES)


def _play_end(bench: Bench, producer: Submitter, task: str, pool: Pool, way: str) -> list[Submission]:
    where = f"{task} by {way} on {pool}"
    worker, ended = _start(bench, pool), 0
    innocent = [] if pool == "solo" else producer.submit("faults.hold", 2, 2.0)
    bench.runs.await_started(acknowledged(innocent), 20)
    (poison,) = producer.submit(task, 1, way)
    deadline = time.monotonic() + (MOST_RUNS + 1) * EXIT_SECONDS
    while time.monotonic() < deadline and poison.id not in {letter.id for letter in bench.dead_letters("default")}:
        if worker.exited_within(0.5):
            worker, ended = _start(bench, pool), ended + 1
    # Who buried it was about to end.
    if worker.exited_within(ENDING_SECONDS):
        worker, ended = _start(bench, pool), ended + 1
    bench.runs.await_ended(acknowledged(innocent), bench.patience_seconds)
    last = producer.submit("faults.note", 5)
    bench.judge.require(bench.runs.await_ended(acknowledged(last), 20), f"{where}: the next node runs nothing")
    _judge(bench, where, poison, ended)
    letters = {letter.id for letter in bench.dead_letters("default")}
    bench.judge.require_none({one.id for one in innocent} & letters, f"{where}: innocent ones were buried")
    worker.terminate()
    bench.judge.require(worker.exited_within(20), f"{where}: the last node does not end")
    return [*innocent, *last]


def _judge(bench: Bench, where: str, poison: Submission, ended: int) -> None:
    runs = len(bench.runs.of(poison.id))
    bench.judge.require(1 <= runs <= MOST_RUNS, f"{where}: {runs} runs, not up to {MOST_RUNS}")
    bench.judge.require(ended <= runs, f"{where}: {ended} nodes ended for {runs} runs")
    letters = [letter for letter in bench.dead_letters("default") if letter.id == poison.id]
    bench.judge.require(len(letters) == 1, f"{where}: {len(letters)} dead letters after {runs} runs")
    for letter in letters:
        bench.judge.require(letter.reason == "crashed", f"{where}: buried as {letter.reason!r}: {letter.error}")
    told = _result_within(bench, poison.id, bench.bound_seconds)
    bench.judge.require(told == "FAILURE", f"{where}: its result says {told}")


def _result_within(bench: Bench, task_id: str, seconds: float) -> str:
    """Return what the result says of a task that failed, or is to within ``seconds``."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: _state(bench, task_id) == "FAILURE", seconds, 0.1)
    return _state(bench, task_id)


def _state(bench: Bench, task_id: str) -> str:
    return str(stored(bench.redis.client, task_id).get("status", "nothing"))


def _play_exits(bench: Bench, producer: Submitter) -> list[Submission]:
    """Exits of hooks, receivers and child tasks: each run succeeds, once, and the node lives."""
    worker = _start(bench, "default")
    sent = [one for task in ("faults.exit_in_hook", "faults.exit_in_task") for one in producer.submit(task, 10)]
    bench.judge.require(bench.runs.await_ended(acknowledged(sent), 20), "tasks whose hooks exit do not end")
    bench.watch_for_repeats()
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran again, though only a hook exited")
    bench.require_alive(worker)
    worker.terminate()
    worker.exited_within(20)
    return sent


def _await_run_on(bench: Bench, worker: Worker, task: Submission) -> None:
    def runs() -> bool:
        bench.runs.refresh()
        return any(run.worker == worker.name for run in bench.runs.of(task.id))

    eventually(runs, 20)


def _play_outsider(bench: Bench, producer: Submitter) -> list[Submission]:
    """A SIGTERM of another process counts for nothing: the task runs on elsewhere, as often as it takes."""
    lives = MOST_RUNS + 1
    (long,) = producer.submit("faults.hold", 1, 8.0)
    for _ in range(lives):
        worker = _start(bench, "default")
        _await_run_on(bench, worker, long)
        worker.terminate()
        bench.judge.require(worker.exited_within(20), "a node that was stopped did not end")
    worker = _start(bench, "default")
    bench.judge.require(bench.runs.await_ended([long.id], 30), f"not run to its end after {lives} restarts")
    bench.judge.require_none({letter.id for letter in bench.dead_letters("default")} & {long.id}, "was buried")
    return [long]
