"""The clock of Redis jumps ten minutes ahead, and back: no lease ends by it, no delayed task is early or stuck."""

from __future__ import annotations

import time

from tests.faults import wrong_clock
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for, quantile, skipped
from tests.faults.producers import Submission, Submitter, acknowledged
from tests.faults.wrong_clock import WrongClock

FAULT = "clock of Redis jumps 10 minutes"
JUMPS_SECONDS = (600, 0, -600, 0)
"""Where the clock stands after each jump, against the right time."""
EARLY_SECONDS = 0.05
LATE_SECONDS = 2.0


def play(bench: Bench) -> Outcome:
    """Let the clock jump again and again under running and delayed tasks; then kill a worker after one more jump."""
    if problem := wrong_clock.problem():
        return skipped(problem)
    clock = WrongClock(bench.directory, "redis")
    bench.start_redis(**clock.environment)
    # With enough slots in addition to the long tasks.
    workers = [
        bench.start_worker(pool, "-Q", "default", pool=pool, concurrency=4, ready=False)
        for pool in ("default", "prefork")
    ]
    bench.await_ready(*workers)
    producer, steady = bench.start_submitter(), bench.start_submitter()
    between_seconds = bench.lease_seconds + 1
    lasts_seconds = between_seconds * (len(JUMPS_SECONDS) + 1)
    held = producer.submit("faults.hold", 4, lasts_seconds)
    assert bench.runs.await_started(acknowledged(held), 20), "the long tasks did not start"
    ends_at = time.monotonic() + lasts_seconds
    delayed = _delayed(producer, lasts_seconds)
    # Submitted with a delay all the while, also in the moments after a jump.
    steady.begin("faults.note", [{"countdown": 1.5}] * int(lasts_seconds * 10), per_second=10)
    for offset_seconds in JUMPS_SECONDS:
        play_for(between_seconds)
        clock.set(offset_seconds)
    play_for(ends_at - time.monotonic())
    delayed += steady.finish()
    sent = held + delayed
    bench.runs.await_ended(acknowledged(sent), bench.bound_seconds + 10)
    bench.watch_for_repeats()

    _judge_times(bench, delayed)
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice")
    bench.require_alive(*workers)
    more, recoveries = _kill_after_jumps(bench, clock)
    return bench.outcome(sent + more, recoveries=recoveries)


def _delayed(producer: Submitter, lasts_seconds: float) -> list[Submission]:
    return [one for n in range(int(lasts_seconds * 5)) for one in producer.submit("faults.note", countdown=1 + n / 5)]


def _judge_times(bench: Bench, delayed: list[Submission]) -> None:
    late = {one.id: run.started_at - one.due_at for one in delayed for run in bench.runs.of(one.id)[:1]}
    early = {f"{task_id} {-seconds:.2f} s" for task_id, seconds in late.items() if seconds < -EARLY_SECONDS}
    bench.judge.require_none(early, "came early")
    stuck = {f"{task_id} {seconds:.1f} s" for task_id, seconds in late.items() if seconds > LATE_SECONDS}
    bench.judge.require_none(stuck, "came late")
    figures = [1000 * (quantile(list(late.values()), share) or 0) for share in (0.5, 0.99)]
    bench.judge.remark(f"lateness of delayed tasks p50 {figures[0]:.0f} ms, p99 {figures[1]:.0f} ms")


def _kill_after_jumps(bench: Bench, clock: WrongClock) -> tuple[list[Submission], list[float]]:
    """A lease of a worker that died must end although the clock was set back, and a new worker must not end others."""
    sent: list[Submission] = []
    recoveries: list[float] = []
    for offset_seconds in (-600, 0):
        producer = bench.start_submitter()
        doomed = bench.start_worker("doomed", "-Q", "high", concurrency=2)
        held = producer.submit("faults.hold", 2, 2.0, queue="high")
        assert bench.runs.await_started(acknowledged(held), 20), "the doomed worker does not run tasks"
        killed_at = bench.kill(doomed)
        clock.set(offset_seconds)
        heir = bench.start_worker("heir", "-Q", "high", concurrency=2)
        bench.runs.await_ended(acknowledged(held), bench.patience_seconds)
        recoveries += [run.started_at - killed_at for one in held for run in bench.runs.of(one.id)[1:2]]
        bench.await_settled()
        bench.kill(heir)
        sent += held
    # A jump makes all leases look dead: one whole lease more is waited then.
    bound_seconds = bench.bound_seconds + bench.lease_seconds
    slowest = max(recoveries, default=0.0)
    bench.judge.require(slowest <= bound_seconds, f"after a jump back only after {slowest:.1f} s")
    bench.judge.require(len(recoveries) == len(sent), f"{len(recoveries)} of {len(sent)} came back after a jump")
    return sent, recoveries
