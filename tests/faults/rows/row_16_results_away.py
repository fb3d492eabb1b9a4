"""The server of the results, one of its own, is away: tasks run, and their results are there soon after it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from tests.faults.harness import Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.producers import Submission, Submitter, acknowledged, chain_of, step
from tests.faults.remains import without_result
from tests.support import eventually

FAULT = "separate result server away"
PER_SECOND = 20
BEGUN_WITHIN_SECONDS = 2.0
WRITTEN_WITHIN_SECONDS = 10.0
SUBMITTED_WITHIN_SECONDS = 0.5


def play(bench: Bench) -> Outcome:
    """Take the server away under load: killed, and frozen, which is worse because no client notices."""
    results = bench.start_results()
    workers = [bench.start_worker(pool, pool=pool, concurrency=4, ready=False) for pool in (None, "prefork")]
    bench.await_ready(*workers)
    producer, steady = bench.start_submitter(), bench.start_submitter()
    sent = producer.submit("faults.note", 20)
    assert bench.runs.await_ended(acknowledged(sent), 20), "the workers do not run tasks"
    waits: list[float] = []
    for leave, come_back in ((results.kill, results.start), (results.freeze, results.thaw)):
        more, wait = _away(bench, producer, steady, leave, come_back)
        sent += more
        waits.append(wait)
    bench.watch_for_repeats()
    bench.judge.require_none(bench.runs.repeated(acknowledged(sent)), "ran twice though no worker died")
    bench.require_alive(*workers)
    return bench.outcome(sent, recoveries=waits)


def _away(
    bench: Bench, producer: Submitter, steady: Submitter, leave: Callable[[], None], come_back: Callable[[], None]
) -> tuple[list[Submission], float]:
    """Return what was sent, and how long after the return the last result was missing."""
    away_seconds = bench.sized(3.0, 6.0, 60.0)
    kinds = [f"faults.note{kind}" for kind in bench.kinds]
    steady.begin(bench.random.choice(kinds), [{}] * int(PER_SECOND * (away_seconds + 2)), per_second=PER_SECOND)
    play_for(1.0)
    leave()
    left_at = time.monotonic()
    chains = producer.submit_workflows(*[chain_of(step("faults.note"), step("faults.receive"))] * 5)
    play_for(left_at + away_seconds - time.monotonic())
    bench.runs.refresh()
    begun_meanwhile = set(bench.runs.by_id)
    back_at = time.monotonic()
    come_back()
    sent = steady.finish() + chains
    meanwhile = [one for one in sent if left_at <= one.sent_at <= back_at - BEGUN_WITHIN_SECONDS]
    waiting = {(one.parts or [one.id])[0] for one in meanwhile} - begun_meanwhile
    bench.judge.require_none(waiting, f"of {len(meanwhile)} did not begin while the results were away")
    slowest = max(one.took_seconds for one in sent)
    bench.judge.require(slowest <= SUBMITTED_WITHIN_SECONDS, f"delay() took {slowest:.1f} s")
    return sent, _judge_written(bench, sent, back_at)


def _judge_written(bench: Bench, sent: list[Submission], back_at: float) -> float:
    assert bench.results is not None
    client = bench.results.client
    missing = set(acknowledged(sent))

    def written() -> bool:
        missing.intersection_update(without_result(client, missing))
        return not missing

    with suppress(AssertionError):
        eventually(written, back_at + WRITTEN_WITHIN_SECONDS - time.monotonic(), every_seconds=0.1)
    seconds = time.monotonic() - back_at
    bench.judge.require_none(missing, f"results missing {WRITTEN_WITHIN_SECONDS:g} s after the server is back")
    with suppress(AssertionError):
        eventually(written, 3 * WRITTEN_WITHIN_SECONDS, every_seconds=0.1)
    return seconds
