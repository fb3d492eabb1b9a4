"""A worker that is away for longer than its lease, with chains and chords in its hands, and comes back.

Follow-ups go to a queue that another worker takes, one that is never away: each of them must run once,
though what they follow may run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.faults.final_results import FinalResults, listening, stored
from tests.faults.harness import Bench
from tests.faults.outcome import play_for
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission, Submitter, acknowledged, chain_of, chord_of, step

SLOTS = 8
LEAST_RUNNING = 3
FOLLOWED_BY = "high"
CONSUMING_WITHIN_SECONDS = 5.0


class Away(NamedTuple):
    """When the worker was away, by CLOCK_MONOTONIC."""

    begun_at: float
    ended_at: float


@dataclass
class Absence:
    """What one absence was made of and what came of it."""

    first: Worker
    second: Worker
    away: Away
    sent: list[Submission] = field(default_factory=list)
    was_running: set[str] = field(default_factory=set)
    recoveries: list[float] = field(default_factory=list)


Leave = Callable[[Worker], AbstractContextManager[Callable[[], Away]]]
"""Takes a worker away for the length of the block; what it yields says, afterwards, when that was."""


def play_absence(bench: Bench, pool: Pool | None, leave: Leave, *, broker_url: str | None = None) -> Absence:
    """Take a worker of ``pool`` away in the middle of its work for three leases, and judge what came of it."""
    keeper = bench.start_worker("keeper", "-Q", FOLLOWED_BY, pool="threads", ready=False)
    first = bench.start_worker(
        "first", "-Q", "default", pool=pool, concurrency=SLOTS, broker_url=broker_url, ready=False
    )  # fmt: skip
    second = bench.start_worker("second", "-Q", "default", pool=pool, concurrency=SLOTS, ready=False)
    bench.await_ready(keeper, first, second)
    producer, steady = bench.start_submitter(), bench.start_submitter()
    with listening(bench.redis.client) as written:
        kind = bench.kinds if pool in (None, "default") else ("",)
        long = producer.submit_workflows(*_workflows(bench.lease_seconds, kind) * 2)
        heads = [task_id for one in long for task_id in one.parts]
        assert bench.runs.await_started(heads, 20), "the workers did not start their tasks"
        away_seconds = 3 * bench.lease_seconds
        flow = chain_of(step("faults.where", 0.02), step("faults.receive", queue=FOLLOWED_BY))
        steady.begin_workflows(*[flow] * int(10 * away_seconds), per_second=10)
        play_for(bench.random.uniform(0.2, 1.0))
        with leave(first) as away:
            play_for(away_seconds)
        absence = Absence(first, second, away(), long + steady.finish())
        _judge_first_works_again(bench, absence, producer)
        bench.runs.await_ended(acknowledged(absence.sent), bench.patience_seconds)
        bench.watch_for_repeats()
        _judge(bench, absence, written)
    bench.require_alive(keeper, first, second)
    _stop(bench, keeper, first, second)
    return absence


def _workflows(lease_seconds: float, kinds: Iterable[str]) -> list[dict[str, Any]]:
    """Tasks that end while their worker is away, if it works on, and others that do when it is back.

    Their second runs have ended by then, or not; a stale completion must count in neither case.
    """
    short, long = 0.9 * lease_seconds + 1.0, 3.6 * lease_seconds
    made: list[dict[str, Any]] = []
    for kind in kinds:
        where, receive = f"faults.where{kind}", step("faults.receive", queue=FOLLOWED_BY)
        made += [chain_of(step(where, seconds), receive) for seconds in (short, long)]
        made += [chord_of([step(where, seconds) for seconds in (short, last)], receive) for last in (short, long)]
    return made


def _judge_first_works_again(bench: Bench, absence: Absence, producer: Submitter) -> None:
    """More than the second worker has slots for must find the first one there."""
    sent = producer.submit("faults.hold", 3 * SLOTS, 0.5, queue="default")
    bench.runs.await_started(acknowledged(sent), bench.bound_seconds)
    starts = [run.started_at for one in sent for run in bench.runs.of(one.id) if run.worker == absence.first.name]
    waited = min(starts, default=float("inf")) - absence.away.ended_at
    bench.judge.require(waited <= CONSUMING_WITHIN_SECONDS, f"the worker takes tasks again only after {waited:.1f} s")
    absence.sent += sent


def _judge(bench: Bench, absence: Absence, written: FinalResults) -> None:
    judge, runs, away = bench.judge, bench.runs, absence.away
    absence.was_running = runs.running_on(absence.first.name, away.begun_at) & set(acknowledged(absence.sent))
    running = len(absence.was_running)
    judge.require(running >= LEAST_RUNNING, f"only {running} were running when the worker went away")
    for task_id in absence.was_running:
        again = [run.started_at for run in runs.of(task_id) if run.worker == absence.second.name]
        # One that ended in the last moment before was settled still.
        if again or written.values[task_id] != [absence.first.name]:
            absence.recoveries.append(min(again, default=float("inf")) - away.begun_at)
    slowest = max(absence.recoveries, default=0.0)
    judge.require(slowest <= bench.bound_seconds, f"back after {slowest:.1f} s, not {bench.bound_seconds:g}")
    follow_ups = {one.id for one in absence.sent if one.parts}
    judge.require_none(runs.repeated(follow_ups), "follow-ups and chord bodies ran twice")
    judge.require_none(written.twice(acknowledged(absence.sent)), "results written twice")
    _judge_values(bench, absence, written)
    again_elsewhere = runs.repeated(acknowledged(absence.sent))
    judge.remark(f"{len(again_elsewhere)} began again, of {len(absence.was_running)} that were running")


def _judge_values(bench: Bench, absence: Absence, written: FinalResults) -> None:
    """What follows a task got the result that is stored of it, and that is no stale one."""
    stale, differing = set(), set()
    for one in absence.sent:
        parts = [stored(bench.redis.client, part).get("result") for part in one.parts]
        got = stored(bench.redis.client, one.id).get("result")
        if one.parts and got not in (parts, parts[0]):
            differing.add(f"{one.id} got {got}, stored are {parts}")
        took_over = {part for part in one.parts if part in absence.was_running and len(bench.runs.of(part)) > 1}
        stale |= {part for part in took_over if absence.first.name in written.values[part]}
    bench.judge.require_none(differing, "follow-ups got another result than the one stored")
    bench.judge.require_none(stale, "stale results were written")


def _stop(bench: Bench, *workers: Worker) -> None:
    bench.await_settled()
    for worker in workers:
        bench.kill(worker)
