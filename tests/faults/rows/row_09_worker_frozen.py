"""A worker is frozen for three leases and thawed: what it then ends is stale, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.faults.absence import Away, play_absence
from tests.faults.harness import Bench
from tests.faults.outcome import Outcome
from tests.faults.processes import Pool, Worker
from tests.faults.producers import Submission

FAULT = "worker frozen for 3 leases, then thawed"


def play(bench: Bench) -> Outcome:
    """Freeze one of two workers in the middle of chains and chords, with each kind of pool."""
    sent: list[Submission] = []
    recoveries: list[float] = []
    pools: tuple[Pool | None, ...] = bench.sized((None,), (None, "prefork"), (None, "prefork", "threads", None))
    for pool in pools:
        absence = play_absence(bench, pool, _frozen)
        sent += absence.sent
        recoveries += absence.recoveries
    return bench.outcome(sent, recoveries=recoveries)


@contextmanager
def _frozen(worker: Worker) -> Iterator[Callable[[], Away]]:
    times = [worker.freeze()]
    yield lambda: Away(*times)
    times.append(worker.thaw())
