"""Many delayed tasks, and the worker that was there first is killed: none lost or run twice, all on time."""

from __future__ import annotations

import os

from taskapp.engine.delayed import DelayedMessages
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for, quantile
from tests.faults.producers import Submission, Submitter, acknowledged

FAULT = "delayed tasks; the first node that could hold them is killed"
LATENESS_P99_SECONDS = 0.05
EARLY_SECONDS = 0.002
"""The engine's time has whole milliseconds."""
MEMORY_GROWTH_BYTES = 20 * 1024 * 1024


def play(bench: Bench) -> Outcome:
    """Submit them all while one worker is there, kill it, let another run them."""
    count, per_second = bench.sized(300, 3000, 100_000), bench.sized(50, 100, 200)
    ahead_seconds = bench.sized(6.0, 10.0, 240.0)
    first = bench.start_worker("first")
    producer = bench.start_submitter()
    warm = producer.submit("faults.note", 20)
    assert bench.runs.await_ended(acknowledged(warm), 20), "the first worker does not run tasks"
    before_bytes = first.resident_bytes
    producer.begin("faults.note", [{"countdown": ahead_seconds + n / per_second} for n in range(count)])
    sent = producer.finish()
    play_for(1)
    grown_bytes, visible = first.resident_bytes - before_bytes, _visible(bench)
    bench.judge.require(visible == count, f"{visible} of {count} can be seen")
    bench.kill(first)
    second = bench.start_worker("second")

    last_due_at = max(one.due_at for one in sent)
    bench.runs.await_ended(acknowledged(sent), last_due_at - sent[-1].answered_at + bench.bound_seconds)
    bench.watch_for_repeats()

    late = [bench.runs.of(one.id)[0].started_at - one.due_at for one in sent if bench.runs.of(one.id)]
    p99, earliest = quantile(late, 0.99) or 0.0, min(late, default=0.0)
    bench.judge.require(p99 <= LATENESS_P99_SECONDS, f"lateness p99 {p99 * 1000:.0f} ms, not 50")
    bench.judge.require(earliest >= -EARLY_SECONDS, f"one came {-earliest:.3f} s early")
    bench.judge.require(grown_bytes <= MEMORY_GROWTH_BYTES, f"the worker grew by {grown_bytes / 2**20:.0f} MiB")
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice")
    median = 1000 * (quantile(late, 0.5) or 0.0)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    bench.judge.remark(f"lateness p50 {median:.1f} ms, p99 {1000 * p99:.1f} ms; {load}")
    bench.judge.remark(f"memory of the first worker {grown_bytes / 2**20:+.1f} MiB")
    quiet = _play_quiet(bench, producer)
    bench.require_alive(second)
    return bench.outcome(sent + quiet, recoveries=late)


def _play_quiet(bench: Bench, producer: Submitter) -> list[Submission]:
    """A few tasks far apart: the worker sleeps between them and must wake up by itself."""
    moments = [1.0]
    while len(moments) < bench.sized(8, 16, 60):
        moments.append(moments[-1] + bench.random.uniform(0.4, 1.2))
    quiet = [one for moment in moments for one in producer.submit("faults.note", countdown=moment)]
    bench.runs.await_ended(acknowledged(quiet), moments[-1] + bench.bound_seconds)
    late = [run.started_at - one.due_at for one in quiet for run in bench.runs.of(one.id)[:1]]
    p90 = quantile(late, 0.9) or 0.0
    bench.judge.require(p90 <= LATENESS_P99_SECONDS, f"far apart: lateness p90 {p90 * 1000:.0f} ms, not 50")
    bench.judge.remark(f"far apart: lateness p50 {1000 * (quantile(late, 0.5) or 0):.1f} ms, p90 {1000 * p90:.1f} ms")
    return quiet


def _visible(bench: Bench) -> int:
    with bench.redis.link() as link:
        return sum(DelayedMessages(link, "", ("default",)).count().values())
