"""Redis is frozen: ``delay()`` raises in time and says what is known; repeating the unknown is safe."""

from __future__ import annotations

import time

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.producers import Submission, acknowledged

FAULT = "Redis frozen longer than the lease"
SUBMIT_DEADLINE_SECONDS = 4.0
"""The default of TASKAPP_SUBMIT_DEADLINE_SECONDS."""
AT_ONCE = 8
"""As many as a producer has threads."""


def play(bench: Bench) -> Outcome:
    """Freeze the server under running tasks and busy producers, thaw it, submit again what is unknown."""
    workers = [bench.start_worker(pool, pool=pool, concurrency=4, ready=False) for pool in ("default", "prefork")]
    bench.await_ready(*workers)
    producers = [bench.start_submitter() for _ in range(2)]
    frozen_seconds = bench.sized(8.0, 8.0, 30.0)
    sent = producers[0].submit("faults.hold", 4, frozen_seconds + 2)
    for producer in producers:
        producer.begin("faults.note", [{}] * 40, at_once=True)  # opens their connections
        sent += producer.finish()
    assert bench.runs.await_ended(acknowledged(sent[4:]), 20), "the workers do not run tasks"

    frozen_at = time.monotonic()
    bench.redis.freeze()
    for producer in producers:
        producer.begin("faults.note", [{}] * AT_ONCE, at_once=True)
    during = producers[0].finish() + producers[1].finish()
    play_for(frozen_at + frozen_seconds - time.monotonic())
    bench.redis.thaw()
    # Each from the process that is in doubt, as the error asks for.
    repeats = [
        again
        for producer, mine in zip(producers, (during[:AT_ONCE], during[AT_ONCE:]), strict=True)
        for one in mine
        if _unknown(one)
        for again in producer.submit("faults.note", 1, task_id=one.id)
    ]
    sent += repeats
    bench.runs.await_ended(acknowledged(sent), bench.patience_seconds)
    bench.watch_for_repeats()

    _judge_errors(bench, during)
    everything = [*sent, *[one for one in during if not _unknown(one)]]
    bench.judge.require_none(bench.runs.repeated({one.id for one in everything}), "ran twice")
    bench.judge.require_none([one.id for one in repeats if not one.acknowledged], "repeats not acknowledged")
    bench.judge.require(len(repeats) > 0, "no outcome was unknown: the freeze came to nothing")
    bench.judge.remark(f"{len(repeats)} of {len(during)} outcomes unknown, submitted again")
    bench.require_alive(*workers)
    return bench.outcome(everything)


def _unknown(submission: Submission) -> bool:
    return submission.error == "SubmitOutcomeUnknown"


def _judge_errors(bench: Bench, during: list[Submission]) -> None:
    """Every ``delay()`` to the frozen server raised in time, with a truthful error."""
    known = [one for one in during if not _unknown(one)]
    bench.judge.require_none([one.id for one in known if one.acknowledged], "acknowledged by a frozen server")
    others = {f"{one.error}: {one.message}" for one in known if one.error not in (None, "BrokerUnavailable")}
    bench.judge.require_none(others, "errors of another kind")
    not_sent = {one.id for one in known if not one.acknowledged}
    bench.judge.require_none(bench.runs.started(not_sent), "ran though the error said they were not queued")
    slowest = max((one.took_seconds for one in during), default=0.0)
    bench.judge.require(slowest <= SUBMIT_DEADLINE_SECONDS + 0.5, f"delay() took {slowest:.1f} s")
    bench.judge.require_none([str(one.message) for one in during if not one.id], "errors without the task's id")
