"""Redis is killed and back after some seconds; one worker is idle, one half busy, one full."""

from __future__ import annotations

import time

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.processes import Pool
from tests.faults.producers import Submission, Submitter, acknowledged

FAULT = "Redis kill -9, back after 5 s"
POOLS: dict[str, Pool] = {"critical": "default", "high": "prefork", "default": "prefork"}
"""A worker for each queue: the idle one, the half busy one and the full one."""
AWAY_SECONDS = 5.0
CONSUMING_WITHIN_SECONDS = 5.0


def play(bench: Bench) -> Outcome:
    """Take the server away while tasks run, end and are submitted."""
    workers = [bench.start_worker(queue, "-Q", queue, pool=pool, ready=False) for queue, pool in POOLS.items()]
    bench.await_ready(*workers)
    producer, steady = bench.start_submitter(), bench.start_submitter()
    # The half busy one works on over the outage; the full one's tasks end while there is no server.
    sent = producer.submit("faults.hold", 1, AWAY_SECONDS + 4, queue="high")
    sent += producer.submit("faults.hold", 2, AWAY_SECONDS - 1, queue="default")
    assert bench.runs.await_started(acknowledged(sent), 20), "the busy workers did not start their tasks"
    sent += producer.submit("faults.note", 20, queue="default")
    steady.begin("faults.note", [{"queue": queue} for queue in POOLS] * bench.sized(10, 20, 60), per_second=10)

    play_for(0.5)
    bench.redis.kill()
    play_for(AWAY_SECONDS)
    bench.redis.start()
    back_at = time.monotonic()
    new = [submission for queue in POOLS for submission in _until_acknowledged(producer, queue)]
    sent += new + steady.finish()
    bench.runs.await_ended(acknowledged(sent), bench.patience_seconds)
    bench.watch_for_repeats()

    bench.require_alive(*workers)
    waits = [run.started_at - back_at for task_id in acknowledged(new) for run in bench.runs.of(task_id)[:1]]
    bench.judge.require(len(waits) == len(POOLS), f"{len(waits)} of {len(POOLS)} workers consume again")
    slowest = max(waits, default=0.0)
    bench.judge.require(slowest <= CONSUMING_WITHIN_SECONDS, f"consuming again only after {slowest:.1f} s")
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice though no worker died")
    return bench.outcome(sent, recoveries=waits)


def _until_acknowledged(producer: Submitter, queue: str) -> list[Submission]:
    """Submit notes until one is acknowledged: the producer's connection may be stale once."""
    tried: list[Submission] = []
    while len(tried) < 5:
        tried += producer.submit("faults.note", 1, queue=queue)
        if tried[-1].acknowledged:
            break
    return tried
