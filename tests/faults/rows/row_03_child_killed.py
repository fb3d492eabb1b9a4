"""Child processes of a prefork pool are killed one by one: their tasks run again at once, or fail and say why."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Any, NamedTuple

from tests.faults.final_results import stored
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.processes import Worker
from tests.faults.producers import Submission, Submitter, acknowledged
from tests.support import eventually

FAULT = "kill -9 one prefork child"
AGAIN_WITHIN_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 0.8
CONCURRENCY = 4
TASK_SECONDS = 0.5
NOT_RETRYABLE = ("faults.hold_once", "faults.hold_fragile")


class Killed(NamedTuple):
    """A child that was killed, and the task it ran; times by CLOCK_MONOTONIC."""

    task_id: str
    at: float


def play(bench: Bench) -> Outcome:
    """Kill children in full flow, then an idle one, then those that run what must not run again."""
    worker = bench.start_worker("children", pool="prefork", concurrency=CONCURRENCY)
    producer = bench.start_submitter()
    kills = bench.sized(2, 8, 60)
    # Enough for every pause to be a long one: a kill needs a task that runs.
    a_pause = LONGEST_PAUSE_SECONDS * CONCURRENCY / TASK_SECONDS
    sent = producer.submit("faults.hold", int(a_pause * kills) + CONCURRENCY, TASK_SECONDS)
    killed: list[Killed] = []
    while len(killed) < kills:
        play_for(bench.random.uniform(0.1, LONGEST_PAUSE_SECONDS))
        killed.append(_kill_running(bench, sent, {one.task_id for one in killed}))
    bench.runs.await_ended(acknowledged(sent), bench.patience_seconds)
    again = _judge_again(bench, sent, killed)
    sent += _kill_idle(bench, worker, producer)
    _kill_not_retryable(bench, producer)
    bench.require_alive(worker)
    return bench.outcome(sent, recoveries=again)


def _kill_running(bench: Bench, sent: list[Submission], spared: set[str]) -> Killed:
    """Kill a child in the middle of its task; a task is hit once, three times would bury it."""

    def running() -> list[tuple[str, int]]:
        bench.runs.refresh()
        runs = {task_id: bench.runs.of(task_id)[-1:] for task_id in acknowledged(sent) if task_id not in spared}
        return [(task_id, run.pid) for task_id, last in runs.items() for run in last if run.ended_at is None]

    task_id, pid = bench.random.choice(eventually(running, 30))
    killed = Killed(task_id, time.monotonic())
    os.kill(pid, signal.SIGKILL)
    return killed


def _judge_again(bench: Bench, sent: list[Submission], killed: list[Killed]) -> list[float]:
    """What was killed runs again soon, in a new child; nothing else does."""
    again, late = [], set()
    for task_id, at in killed:
        later = [run.started_at - at for run in bench.runs.of(task_id) if run.started_at > at]
        again += later[:1]
        if bench.runs.of(task_id)[0].ended_at is None and min(later, default=float("inf")) > AGAIN_WITHIN_SECONDS:
            late.add(f"{task_id} {min(later, default=float('inf')):.1f} s")
    bench.judge.require_none(late, f"not running again within {AGAIN_WITHIN_SECONDS:g} s")
    hit = {one.task_id for one in killed}
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)) - hit, "ran twice though their child lived")
    bench.judge.require(bench.runs.extra_runs(hit) <= len(killed), "a task ran more often than its child was killed")
    return again


def _kill_idle(bench: Bench, worker: Worker, producer: Submitter) -> list[Submission]:
    """A child without a task is replaced: as many tasks as there are slots run at once."""
    bench.await_settled()
    os.kill(bench.random.choice(sorted(worker.children)), signal.SIGKILL)
    sent = producer.submit("faults.hold", CONCURRENCY, 2 * AGAIN_WITHIN_SECONDS)
    begun = bench.runs.await_started(acknowledged(sent), AGAIN_WITHIN_SECONDS)
    bench.judge.require(begun, f"after an idle child was killed, not all slots work within {AGAIN_WITHIN_SECONDS:g} s")
    bench.runs.await_ended(acknowledged(sent), bench.patience_seconds)
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice though an idle child was killed")
    return sent


def _kill_not_retryable(bench: Bench, producer: Submitter) -> None:
    """What must not run again has failed, with a result that says that its process died."""
    for task in NOT_RETRYABLE:
        sent = producer.submit(task, 2, 30.0)
        assert bench.runs.await_started(acknowledged(sent), 20), f"{task} did not start"
        for one in sent:
            os.kill(bench.runs.of(one.id)[0].pid, signal.SIGKILL)
        results = _results_of(bench, acknowledged(sent))
        vague = {f"{task_id}: {result}" for task_id, result in results.items() if not _says_lost(result)}
        bench.judge.require_none(vague, f"of {task} without a WorkerLostError within {AGAIN_WITHIN_SECONDS:g} s")
        bench.watch_for_repeats()
        bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), f"of {task} ran again")


def _results_of(bench: Bench, task_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Return what is stored of ``task_ids`` when all have failed, or after the time there is for that."""

    def read() -> dict[str, dict[str, Any]]:
        return {task_id: stored(bench.redis.client, task_id) for task_id in task_ids}

    with suppress(AssertionError):
        eventually(lambda: all(meta.get("status") == "FAILURE" for meta in read().values()), AGAIN_WITHIN_SECONDS)
    return read()


def _says_lost(meta: dict[str, Any]) -> bool:
    result = meta.get("result")
    return meta.get("status") == "FAILURE" and isinstance(result, dict) and result["exc_type"] == "WorkerLostError"
