"""A whole worker is killed with running tasks and others behind: all run elsewhere in time."""

from __future__ import annotations

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.producers import acknowledged

FAULT = "kill -9 a whole worker"
PLAYS_STOCK = True


def play(bench: Bench) -> Outcome:
    """Kill one of two workers, with as many tasks running as it has slots and more behind them."""
    concurrency = bench.sized(4, 4, 20)
    first = bench.start_worker("first", concurrency=concurrency)
    producer = bench.start_submitter()
    long = producer.submit("faults.hold", concurrency, bench.sized(8.0, 10.0, 20.0))
    assert bench.runs.await_started(acknowledged(long), 20), "the first worker did not start its tasks"
    behind = producer.submit("faults.note", bench.sized(50, 200, 200))
    bench.start_worker("second", concurrency=concurrency, pool=bench.sized("prefork", "threads", "prefork"))

    killed_at = bench.kill(first)
    sent = long + behind
    bench.runs.await_ended(acknowledged(sent), bench.patience_seconds)
    if bench.engine == "taskapp":
        bench.watch_for_repeats()

    was_running = bench.runs.running_on(first.name, killed_at)
    again = [run.started_at - killed_at for task_id in was_running for run in bench.runs.of(task_id)[1:2]]
    bench.judge.require(len(was_running) > 0, "nothing was running when the worker was killed")
    bench.judge.require(len(again) == len(was_running), f"{len(again)} of {len(was_running)} running ones came back")
    slowest = max(again, default=0.0)
    bench.judge.require(slowest <= bench.bound_seconds, f"back after {slowest:.1f} s, not {bench.bound_seconds:g}")
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)) - was_running, "ran twice without need")
    return bench.outcome(sent, recoveries=again)
