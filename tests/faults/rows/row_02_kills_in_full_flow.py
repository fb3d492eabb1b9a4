"""Workers are killed over and over in full flow: none is lost, and what ran twice is bounded."""

from __future__ import annotations

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.processes import Pool, Worker
from tests.faults.producers import acknowledged

FAULT = "repeated kill -9 under full load"
PLAYS_STOCK = True
CONCURRENCY = 2
POOLS: dict[str, Pool] = {"a": "prefork", "b": "threads", "c": "default"}

WAYS: tuple[dict[str, float], ...] = ({}, {}, {"priority": 5}, {"priority": 9}, {"countdown": 1.0})
"""How a task is submitted: at once, above others, or for later."""


def play(bench: Bench) -> Outcome:
    """Submit at a rate, kill a random worker at random moments, start another in its place."""
    kills, gap_seconds = bench.sized(4, 10, 100), bench.sized(2.0, 2.0, 3.5)
    workers = {name: _start(bench, name) for name in POOLS}
    bench.await_ready(*workers.values())
    producer = bench.start_submitter()
    count = bench.sized(1000, 4000, 100_000)
    options = [bench.random.choice(WAYS) for _ in range(count)]
    producer.begin("faults.hold", options, args=(0.005,), per_second=bench.sized(100, 200, 250))

    for _ in range(kills):
        play_for(bench.random.uniform(0.2, 2 * gap_seconds - 0.2))
        name = _any_ready(bench, workers)
        bench.kill(workers[name])
        workers[name] = _start(bench, name)
    sent = producer.finish()
    bench.runs.await_ended(acknowledged(sent), bench.patience_seconds)
    if bench.engine == "taskapp":
        bench.watch_for_repeats()

    extra, allowed = bench.runs.extra_runs(acknowledged(sent)), kills * CONCURRENCY
    bench.judge.require(extra <= allowed, f"{extra} runs too many, {allowed} allowed")
    bench.judge.remark(f"{kills} kills, {extra} runs too many of {allowed} allowed")
    bench.require_alive(*workers.values())
    return bench.outcome(sent)


def _start(bench: Bench, name: str) -> Worker:
    return bench.start_worker(name, pool=POOLS[name], concurrency=CONCURRENCY, ready=False)


def _any_ready(bench: Bench, workers: dict[str, Worker]) -> str:
    """Choose one of the workers that take tasks, at random; wait if all are starting."""
    ready = [name for name, worker in workers.items() if worker.ready]
    if not ready:
        name = bench.random.choice(list(workers))
        bench.await_ready(workers[name])
        return name
    return bench.random.choice(ready)
