"""The network between a worker and Redis is cut for longer than the lease: it begins nothing, and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.faults.absence import Absence, Away, Leave, play_absence
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.processes import Worker
from tests.faults.producers import Submission
from tests.faults.wire import Wire

FAULT = "network between worker and Redis cut for longer than the lease"


def play(bench: Bench) -> Outcome:
    """Cut it twice: once what was on its way arrives late, once the connections are reset."""
    sent: list[Submission] = []
    recoveries: list[float] = []
    for reset in bench.sized((False,), (False, True), (False, True) * 3):
        wire = Wire(bench.redis.port)
        absence = play_absence(bench, None, _cut(wire, reset=reset), broker_url=wire.url)
        _judge_starts(bench, absence)
        wire.close()
        sent += absence.sent
        recoveries += absence.recoveries
    return bench.outcome(sent, recoveries=recoveries)


def _cut(wire: Wire, *, reset: bool) -> Leave:
    @contextmanager
    def cut(_: Worker) -> Iterator[Callable[[], Away]]:
        times = [time.monotonic()]
        wire.cut()
        yield lambda: Away(*times)
        times.append(time.monotonic())
        wire.mend(reset=reset)

    return cut


def _judge_starts(bench: Bench, absence: Absence) -> None:
    """From the end of its lease on, the worker that is cut off begins no task; others may have it."""
    lease_ended_at = absence.away.begun_at + bench.lease_seconds
    begun = {
        task_id
        for task_id, runs in bench.runs.by_id.items()
        for run in runs
        if run.worker == absence.first.name and lease_ended_at < run.started_at < absence.away.ended_at
    }
    bench.judge.require_none(begun, "begun by a worker that was cut off")
