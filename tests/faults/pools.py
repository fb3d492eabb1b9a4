"""Rows that are played in each kind of pool, in a queue of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission, Submitter

PlayQueue = Callable[[Bench, Submitter, str, Worker], list[Submission]]


def play_in_pools(bench: Bench, pools: Mapping[str, Pool], play_queue: PlayQueue, *, parked_seconds: float) -> Outcome:
    """Start a worker for each of ``pools``, two of them in the quick size, and play one queue after the other.

    Args:
        bench: Starts them, and judges.
        pools: Queue to the pool that takes its tasks.
        play_queue: Plays one queue; returns what was submitted.
        parked_seconds: How long these nodes keep messages of task types that nobody has.
    """
    variables = {"TASKAPP_PARKED_SECONDS": str(parked_seconds)}
    workers = {
        queue: bench.start_worker(queue, "-Q", queue, pool=pool, ready=False, variables=variables)
        for queue, pool in list(pools.items())[: bench.sized(2, 4, 4)]
    }
    producer = bench.start_submitter()
    bench.await_ready(*workers.values())
    sent: list[Submission] = []
    for queue, worker in workers.items():
        sent += play_queue(bench, producer, queue, worker)
    return bench.outcome(sent)
