"""Tasks ten leases long, on workers that live: each runs exactly once."""

from __future__ import annotations

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.producers import acknowledged

FAULT = "a task 10 leases long"


def play(bench: Bench) -> Outcome:
    """Fill one worker of each pool with long tasks: its event loop, its threads, its children are all busy."""
    workers = [bench.start_worker(pool, pool=pool, ready=False) for pool in ("default", "prefork", "threads", "solo")]
    bench.await_ready(*workers)
    sent = bench.start_submitter().submit("faults.hold", 7, 10 * bench.lease_seconds)

    bench.runs.await_ended(acknowledged(sent), 30 * bench.lease_seconds)
    bench.watch_for_repeats()

    where = {run.worker for task_id in acknowledged(sent) for run in bench.runs.of(task_id)}
    bench.judge.require(len(where) == len(workers), f"only {', '.join(sorted(where))} ran one")
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice")
    bench.require_alive(*workers)
    return bench.outcome(sent)
