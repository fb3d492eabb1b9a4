"""A task type that the older worker lacks: it is parked, and runs as soon as a worker has it."""

from __future__ import annotations

from tests.faults.harness import NEWER_TASKS, TASKS, Bench
from tests.faults.outcome import Outcome
from tests.faults.producers import acknowledged
from tests.support import eventually

FAULT = "version skew: a worker lacks a task type"
PARKED_WITHIN_SECONDS = 5.0
RUN_WITHIN_SECONDS = 5.0


def play(bench: Bench) -> Outcome:
    """Submit newcomers to an old worker, then start a new one; kill it while others wait, and start one more."""
    old = bench.start_worker("old")
    producer = bench.start_submitter()
    count = bench.sized(10, 50, 500)
    newcomers = producer.submit("faults.newcomer", count, priority=4)
    others = producer.submit("faults.note", count)
    ran = bench.runs.await_ended(acknowledged(others), 10)
    bench.judge.require(ran, "tasks that the old worker has do not run next to those it lacks")
    eventually(lambda: _parked(bench) == count, PARKED_WITHIN_SECONDS)
    bench.watch_for_repeats()
    bench.judge.require(_parked(bench) == count, f"{_parked(bench)} of {count} are parked after a lease")
    bench.judge.require_none(bench.runs.started(acknowledged(newcomers)), "ran on a worker that lacks the type")

    new = bench.start_worker("new", include=f"{TASKS},{NEWER_TASKS}")
    ran = bench.runs.await_ended(acknowledged(newcomers), RUN_WITHIN_SECONDS)
    bench.judge.require(ran, f"not all ran within {RUN_WITHIN_SECONDS:g} s of a worker that has the type")
    bench.await_settled()
    bench.kill(new)
    later = producer.submit("faults.newcomer", count)
    eventually(lambda: _parked(bench) == count, PARKED_WITHIN_SECONDS)
    bench.start_worker("newer", pool="solo", include=f"{TASKS},{NEWER_TASKS}")
    sent = newcomers + others + later
    bench.runs.await_ended(acknowledged(sent), bench.bound_seconds)

    waits = [run.started_at for one in later for run in bench.runs.of(one.id)[:1]]
    bench.judge.require(len(waits) == count, f"{len(waits)} of {count} ran on the second new worker")
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice")
    bench.judge.require(not bench.dead_letters(), "some went to the dead letters")
    bench.require_alive(old)
    return bench.outcome(sent)


def _parked(bench: Bench) -> int:
    client = bench.redis.client
    return sum(client.llen(key) for key in client.scan_iter("taskapp:{*}:parked:*") if client.type(key) == "list")
