"""Workers are restarted one after another under load, over and over: none lost, none twice, each exit in time."""

from __future__ import annotations

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for, quantile
from tests.faults.processes import Pool, Worker
from tests.faults.producers import acknowledged, step

FAULT = "rolling restart under load"
PLAYS_STOCK = True
POOLS: dict[str, Pool | None] = {"a": None, "b": "prefork", "c": "threads"}
CONCURRENCY = 3
DRAIN_SECONDS = 8.0
GRACE_SECONDS = 10.0
"""What the supervisor waits between SIGTERM and SIGKILL."""
TASK_SECONDS = (0.005, 0.005, 0.005, 0.05, 0.3, 2.0)
"""Some are shorter than the way to the pool and back, some outlast several turns of the loop; all can be drained."""
PER_SECOND = 12


def play(bench: Bench) -> Outcome:
    """Submit at a rate; end a worker and start its successor, before or after, as deployments do."""
    workers = {name: _start(bench, name) for name in POOLS}
    bench.await_ready(*workers.values())
    producer, restarts = bench.start_submitter(), bench.sized(2, 9, 100)
    kinds = [f"faults.hold{kind}" for kind in bench.kinds]
    per_restart = bench.sized(80, 60, 80)
    flow = [step(bench.random.choice(kinds), bench.random.choice(TASK_SECONDS)) for _ in range(per_restart * restarts)]
    producer.begin_workflows(*flow, per_second=PER_SECOND)
    exits = [_restart(bench, workers, list(POOLS)[n % len(POOLS)]) for n in range(restarts)]
    sent = producer.finish()
    bench.runs.await_ended(acknowledged(sent), bench.patience_seconds)
    bench.watch_for_repeats()
    bench.judge.require_none(
        bench.runs.repeated(acknowledged(sent)), "ran twice though every worker could end its tasks"
    )
    shown = ", ".join(f"{quantile(exits, share) or 0:.1f}" for share in (0.5, 1.0))
    bench.judge.remark(f"{restarts} restarts; exits took p50, max {shown} s")
    bench.require_alive(*workers.values())
    return bench.outcome(sent)


def _start(bench: Bench, name: str) -> Worker:
    variables = {"TASKAPP_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}"}
    return bench.start_worker(name, pool=POOLS[name], concurrency=CONCURRENCY, variables=variables, ready=False)


def _restart(bench: Bench, workers: dict[str, Worker], name: str) -> float:
    """Return how long the old one took to exit."""
    play_for(bench.random.uniform(0.0, 1.0))
    old = workers[name]
    surges = bench.random.random() < 0.5
    if surges:
        workers[name] = _start(bench, name)
        bench.await_ready(workers[name])
    seconds = _end(bench, old)
    if not surges:
        workers[name] = _start(bench, name)
        bench.await_ready(workers[name])
    return seconds


def _end(bench: Bench, worker: Worker) -> float:
    terminated_at = worker.terminate()
    in_time = worker.exited_within(GRACE_SECONDS)
    ended_at = bench.kill(worker)
    bench.judge.require(in_time, f"{worker.name} did not exit within {GRACE_SECONDS:g} s of SIGTERM")
    bench.judge.require(worker.process.returncode == 0, f"{worker.name} exited {worker.process.returncode}")
    return ended_at - terminated_at
