"""Workers and producers whose wall clock is ten minutes wrong: no effect."""

from __future__ import annotations

from tests.faults import wrong_clock
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, quantile, skipped
from tests.faults.producers import Submission, acknowledged
from tests.faults.wrong_clock import WrongClock

FAULT = "clocks of workers wrong by 10 minutes"
WRONG_SECONDS = 600
LATE_SECONDS = 1.0
EARLY_SECONDS = 0.05


def play(bench: Bench) -> Outcome:
    """Run long, delayed, expiring and retrying tasks between clocks that are ahead, behind and right."""
    if problem := wrong_clock.problem():
        return skipped(problem)
    clocks = {
        "ahead": WrongClock(bench.directory, "ahead", WRONG_SECONDS),
        "behind": WrongClock(bench.directory, "behind", -WRONG_SECONDS),
        "right": WrongClock(bench.directory, "right"),
    }
    workers = [
        bench.start_worker("ahead", pool="prefork", ready=False, variables=clocks["ahead"].environment),
        bench.start_worker("behind", pool="default", ready=False, variables=clocks["behind"].environment),
    ]
    bench.await_ready(*workers)
    producers = [bench.start_submitter(clock.environment) for clock in clocks.values()]

    long = producers[0].submit("faults.hold", 2, 3 * bench.lease_seconds)
    delayed: list[Submission] = []
    sent = list(long)
    for producer in producers:
        delayed += [
            one for n in range(bench.sized(10, 20, 200)) for one in producer.submit("faults.note", countdown=2 + n / 10)
        ]
        sent += producer.submit("faults.fail_until", 2, 2, 0.5)
        sent += producer.submit("faults.note", 10, expires=WRONG_SECONDS / 10)
    sent += delayed
    bench.runs.await_ended(acknowledged(sent), 6 * bench.lease_seconds + 30)
    bench.watch_for_repeats()

    late = [run.started_at - one.due_at for one in delayed for run in bench.runs.of(one.id)[:1]]
    slowest, earliest = max(late, default=0.0), min(late, default=0.0)
    bench.judge.require(slowest <= LATE_SECONDS, f"a delayed task came {slowest:.1f} s late")
    bench.judge.require(earliest >= -EARLY_SECONDS, f"a delayed task came {-earliest:.1f} s early")
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice")
    bench.judge.remark(f"lateness of delayed tasks p50 {1000 * (quantile(late, 0.5) or 0):.0f} ms")
    bench.require_alive(*workers)
    _judge_expiry(bench)
    return bench.outcome(sent, recoveries=late)


def _judge_expiry(bench: Bench) -> None:
    """What expires while no worker is there does not run on one whose clock is behind."""
    for worker in bench.workers:
        bench.kill(worker)
    stale = bench.start_submitter().submit("faults.note", 3, expires=0.5)
    bench.runs.watch(1.0)
    clock = WrongClock(bench.directory, "late", -WRONG_SECONDS)
    bench.start_worker("late", variables=clock.environment)
    bench.runs.watch(2.0)
    bench.judge.require_none(bench.runs.started(acknowledged(stale)), "ran though they had expired")
