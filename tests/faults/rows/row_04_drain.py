"""A worker gets SIGTERM, and SIGKILL some seconds later: what waits is elsewhere at once, what runs in time."""

from __future__ import annotations

from typing import NamedTuple

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission, Submitter, acknowledged

FAULT = "SIGTERM, then SIGKILL, with long tasks"
PLAYS_STOCK = True
CONCURRENCY = 8
LONG_EACH = 2
WAITING_WITHIN_SECONDS = 1.0
IDLE_EXIT_SECONDS = 3.0
NOTES_PER_SECOND = 40


class Times(NamedTuple):
    """The seconds of this size: tasks are far longer than the drain."""

    drain: float
    kill: float
    elsewhere: float
    task: float


def play(bench: Bench) -> Outcome:
    """Drain a worker of each pool under load, and an idle one."""
    times = bench.sized(Times(2, 4, 6, 8.0), Times(3, 5, 7, 10.0), Times(8, 10, 12, 30.0))
    sent: list[Submission] = []
    recoveries: list[float] = []
    pools: tuple[Pool | None, ...] = bench.sized((None,), (None, "prefork"), (None, "prefork", "threads"))
    for pool in pools:
        more, seconds = _drain(bench, pool, times)
        sent += more
        recoveries += seconds
    return bench.outcome(sent, recoveries=recoveries)


def _start(bench: Bench, name: str, pool: Pool | None, times: Times) -> Worker:
    variables = {"TASKAPP_DRAIN_SECONDS": f"{times.drain:g}"}
    return bench.start_worker(name, pool=pool, concurrency=CONCURRENCY, variables=variables, ready=False)


def _drain(bench: Bench, pool: Pool | None, times: Times) -> tuple[list[Submission], list[float]]:
    first, second, idle = (_start(bench, name, pool, times) for name in ("first", "second", "idle"))
    bench.await_ready(first, second, idle)
    _judge_idle(bench, idle)
    producer, steady = bench.start_submitter(), bench.start_submitter()
    kinds = bench.kinds if pool is None else ("",)
    long = [one for kind in kinds for one in _occupy(bench, first, producer, f"faults.hold{kind}", times.task)]
    short = [one for kind in kinds for one in producer.submit(f"faults.hold{kind}", 2, 1.0 + times.drain / 2)]
    assert bench.runs.await_started(acknowledged(short), 20), "the workers did not start their tasks"

    lasts_seconds = 1.0 + times.kill
    steady.begin("faults.hold", [{}] * int(NOTES_PER_SECOND * lasts_seconds), args=[0.01], per_second=NOTES_PER_SECOND)
    play_for(1.0)
    waiting = producer.submit("faults.hold", 2 * CONCURRENCY, 0.05)
    terminated_at = first.terminate()
    in_time = first.exited_within(times.kill)
    if not in_time:
        bench.kill(first)
    bench.judge.require(in_time, f"the worker did not exit by itself within {times.kill:g} s of SIGTERM")
    bench.judge.require(first.process.returncode == 0, f"the worker exited {first.process.returncode}")
    waiting += steady.finish()
    sent = long + short + waiting
    bench.runs.await_ended(acknowledged(sent), times.task + bench.patience_seconds)
    bench.watch_for_repeats()

    _judge_waiting(bench, first, waiting, terminated_at)
    were_running = bench.runs.running_on(first.name, terminated_at) & set(acknowledged(long))
    recoveries = _judge_running(bench, were_running, terminated_at, times)
    others = set(acknowledged(sent)) - were_running
    bench.judge.require_none(bench.runs.repeated(others), "ran twice though there was time")
    bench.require_alive(second)
    bench.await_settled()
    bench.kill(second)
    return sent, recoveries


def _occupy(bench: Bench, first: Worker, producer: Submitter, task: str, seconds: float) -> list[Submission]:
    """Submit long tasks one by one until the first worker runs enough of them."""
    sent: list[Submission] = []
    while len([one for one in sent if bench.runs.of(one.id)[0].worker == first.name]) < LONG_EACH:
        assert len(sent) < CONCURRENCY, "the first worker takes no tasks"
        sent += producer.submit(task, 1, seconds)
        assert bench.runs.await_started(acknowledged(sent), 20), "the workers do not start tasks"
    return sent


def _judge_waiting(bench: Bench, first: Worker, waiting: list[Submission], terminated_at: float) -> None:
    """What had not begun begins elsewhere within a second, and nothing more begins where the end was announced."""
    late = set()
    for one in waiting:
        for run in bench.runs.of(one.id)[:1]:
            waited_seconds = run.started_at - max(one.sent_at, terminated_at)
            if waited_seconds > WAITING_WITHIN_SECONDS:
                late.add(f"{one.id} {waited_seconds:.1f} s")
    bench.judge.require_none(late, f"of those waiting began later than {WAITING_WITHIN_SECONDS:g} s after SIGTERM")
    runs = [(one.id, run) for one in waiting for run in bench.runs.of(one.id) if run.worker == first.name]
    begun = {task_id for task_id, run in runs if run.started_at > terminated_at + WAITING_WITHIN_SECONDS}
    bench.judge.require_none(begun, "started on the worker that was stopping")


def _judge_running(bench: Bench, long: set[str], terminated_at: float, times: Times) -> list[float]:
    """What ran past the deadline begins again elsewhere, once."""
    again = [run.started_at - terminated_at for task_id in long for run in bench.runs.of(task_id)[1:2]]
    bench.judge.require(len(long) >= LONG_EACH, f"{len(long)} long tasks were running")
    bench.judge.require(len(again) == len(long), f"{len(again)} of {len(long)} long tasks began elsewhere")
    slowest = max(again, default=0.0)
    bench.judge.require(slowest <= times.elsewhere, f"a running one was elsewhere only after {slowest:.1f} s")
    extra = bench.runs.extra_runs(long)
    bench.judge.require(extra <= len(long), f"{extra} runs too many of {len(long)} long tasks")
    return again


def _judge_idle(bench: Bench, idle: Worker) -> None:
    idle.terminate()
    gone = idle.exited_within(IDLE_EXIT_SECONDS)
    bench.judge.require(gone, f"an idle worker is there {IDLE_EXIT_SECONDS:g} s after SIGTERM")
    bench.kill(idle)
    bench.judge.require(idle.process.returncode == 0, f"an idle worker exited {idle.process.returncode}")
