"""Chords whose workers are killed, whose headers fail or come twice: the body runs once, or the errback does."""

from __future__ import annotations

import math
from itertools import cycle, islice
from typing import Any

import redis

from taskapp.redis.keys import Keys
from tests.faults.final_results import FinalResults, listening, stored
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.processes import Worker
from tests.faults.producers import Submission, chord_of, step
from tests.support import eventually

FAULT = "chord of 500: killed worker, failing header, header delivered twice"
KEEPER_QUEUE = "high"
"""Where bodies and errbacks run, on a worker that lives: a second run of one has no excuse."""
HEADER_SECONDS = 0.02
CONCURRENCY = 4


def play(bench: Bench) -> Outcome:
    """Play each of the faults, with a worker killed at another moment each time."""
    keeper = bench.start_worker("keeper", "-Q", KEEPER_QUEUE, pool="threads", ready=False)
    random = bench.random
    with listening(bench.redis.client) as written:
        chords = _Chords(bench, written)
        for moment in bench.sized((0.5,), (0.5, 1.0), (*[random.random() for _ in range(8)], 0.99, 1.0, 1.0, 1.0)):
            chords.kill(moment)
        for failing in bench.sized((1,), (1, 3), (1, 3, 50)):
            chords.fail(failing, kill_at=random.random())
        for _ in range(bench.sized(1, 1, 3)):
            chords.deliver_twice()
    bench.require_alive(keeper)
    return bench.outcome(chords.sent, excused=chords.excused, recoveries=chords.waits)


class _Chords:
    """Two workers for headers, and the chords so far."""

    def __init__(self, bench: Bench, written: FinalResults) -> None:
        self.bench, self.written = bench, written
        self.size = bench.sized(60, 500, 500)
        self.sent: list[Submission] = []
        self.excused: set[str] = set()
        """Bodies that must not run."""
        self.waits: list[float] = []
        """How long each body or errback was pending after the last that could be waited for."""
        self._producer = bench.start_submitter()
        self._start_both()

    def _start(self, name: str) -> Worker:
        return self.bench.start_worker(name, "-Q", "default", concurrency=CONCURRENCY, ready=False)

    def _start_both(self) -> None:
        self._lives = [self._start("a"), self._start("b")]
        self.bench.await_ready(*self.bench.workers[:1], *self._lives)

    # --- the faults ---------------------------------------------------------------------------

    def kill(self, moment: float) -> None:
        """Kill one of two workers when the share ``moment`` of the header has ended."""
        chord = self._submit(self._numbers())
        killed_at = self._kill_when(chord, moment)
        self._judge_body(chord, killed_at, f"killed at {moment:.2f}")

    def fail(self, failing: int, *, kill_at: float) -> None:
        """Let some of the header fail, and kill a worker as well."""
        header = self._numbers()
        for position in self.bench.random.sample(range(self.size), failing):
            header[position] = step("faults.refuse", HEADER_SECONDS)
        chord = self._submit(header)
        killed_at = self._kill_when(chord, kill_at)
        self._judge_errback(chord, killed_at, f"{failing} failed, killed at {kill_at:.2f}")

    def deliver_twice(self) -> None:
        """Have every message of the header twice in its queue, some copies early and some late."""
        for worker in self._lives:
            self.bench.kill(worker)
        chord = self._submit(self._numbers())
        with redis.Redis(port=self.bench.redis.port) as client:
            ready = Keys().ready("default")
            messages: list[Any] = client.lrange(ready, 0, -1)
            assert len(messages) == self.size, f"{len(messages)} of {self.size} messages are ready"
            doubled = messages * 2
            self.bench.random.shuffle(doubled)
            client.rpush(ready, *doubled)
            client.ltrim(ready, self.size, -1)
        self._start_both()
        self._judge_body(chord, 0.0, "headers delivered twice")

    # --- how they are done --------------------------------------------------------------------

    def _numbers(self) -> list[dict[str, Any]]:
        kinds = islice(cycle(self.bench.kinds), self.size)
        return [step(f"faults.number{kind}", value, HEADER_SECONDS) for value, kind in enumerate(kinds)]

    def _submit(self, header: list[dict[str, Any]]) -> Submission:
        body, errback = (step(f"faults.{name}", queue=KEEPER_QUEUE) for name in ("receive", "errback"))
        [chord] = self._producer.submit_workflows(chord_of(header, body, errback))
        assert chord.acknowledged, chord.message
        self.sent.append(chord)
        return chord

    def _kill_when(self, chord: Submission, moment: float) -> float:
        """Kill the worker that ended the latest of the header; start another in its place."""
        runs, enough = self.bench.runs, math.ceil(moment * self.size)

        def has_come() -> bool:
            runs.refresh()
            return len(runs.ended(chord.parts)) >= enough

        eventually(has_come, 60, every_seconds=0.002)
        ended = [run for part in chord.parts for run in runs.of(part) if run.ended_at is not None]
        latest = max(ended, key=lambda run: run.ended_at or 0.0).worker if ended else self._lives[0].name
        [position] = [position for position, worker in enumerate(self._lives) if worker.name == latest]
        killed_at = self.bench.kill(self._lives[position])
        self._lives[position] = self._start("ab"[position])
        return killed_at

    # --- what came of it ----------------------------------------------------------------------

    def _judge_body(self, chord: Submission, killed_at: float, what: str) -> None:
        self._judge_once(chord.id, chord, killed_at, f"{what}: the body")
        judge, runs = self.bench.judge, self.bench.runs
        judge.require(not runs.of(chord.errback or ""), f"{what}: the errback ran")
        got = stored(self.bench.redis.client, chord.id)
        right = got.get("status") == "SUCCESS" and got.get("result") == list(range(self.size))
        judge.require(right, f"{what}: the body has not the results of its header: {str(got)[:200]}")

    def _judge_errback(self, chord: Submission, killed_at: float, what: str) -> None:
        assert chord.errback is not None
        self.excused.add(chord.id)
        self._judge_once(chord.errback, chord, killed_at, f"{what}: the errback")
        judge, client = self.bench.judge, self.bench.redis.client
        judge.require(not self.bench.runs.of(chord.id), f"{what}: the body ran though a header failed")
        status = stored(client, chord.id).get("status")
        judge.require(status == "FAILURE", f"{what}: the body is {status}, not FAILURE")
        told = stored(client, chord.errback).get("result")
        judge.require(told == chord.id, f"{what}: the errback was told of {told}, not of the body")

    def _judge_once(self, last_id: str, chord: Submission, killed_at: float, what: str) -> None:
        """What ends the chord runs once, soon after the last of the header that nothing stood in the way of."""
        bench = self.bench
        bound_seconds = bench.bound_seconds + HEADER_SECONDS
        patience_seconds = bench.patience_seconds + 2 * self.size * HEADER_SECONDS
        bench.runs.await_ended([*chord.parts, last_id], patience_seconds)
        bench.await_settled()
        bench.watch_for_repeats()
        runs = bench.runs.of(last_id)
        bench.judge.require(len(runs) == 1, f"{what} ran {len(runs)} times")
        first_ends = [run.ended_at for part in chord.parts for run in bench.runs.of(part)[:1] if run.ended_at]
        if runs:
            waited_seconds = runs[0].started_at - max(killed_at, *first_ends)
            self.waits.append(waited_seconds)
            bench.judge.require(waited_seconds <= bound_seconds, f"{what} was pending for {waited_seconds:.1f} s")
        writes = self.written.counts[chord.id]
        bench.judge.require(writes <= 1, f"{what}: the result of the body was written {writes} times")
