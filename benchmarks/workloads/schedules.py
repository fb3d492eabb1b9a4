"""Timed jobs: how late they are sent if many are due at once, what an idle beat costs, how long a takeover takes.

No worker runs: the benchmark takes what beats send from the queue and notes the time.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from statistics import quantiles
from typing import Any

from benchmarks.bench import Bench
from benchmarks.frameworks import Variant
from benchmarks.processes import BrokenOff, Process
from benchmarks.workloads import Parameters
from taskapp.redis.keys import Keys

LISTS = (Keys().ready("default"), "celery")
"""Lists of the default queues of taskapp and Celery."""
NAME = re.compile(rb"job-(\d{6})")
DAY_SECONDS = 86_400.0
LEAD_SECONDS = 15.0
"""Time between adding and the first due time, long enough for a beat that polls."""
OVERTIME_SECONDS = 20.0
IDLE_SECONDS = 10.0
TAKEOVER_SECONDS = 60.0
LOOK_SECONDS = 0.001
AT_ONCE = 1_000

SIZES = {
    "smoke": ({"entries": 200, "due": 50},),
    "quick": ({"entries": 5_000, "due": 1_000},),
    "full": ({"entries": 100, "due": 50}, {"entries": 100_000, "due": 1_000}),
}


def takes_part(variant: Variant, _parameters: Parameters) -> bool:
    return bool(variant.beat)


def measure(bench: Bench, entries: int, due: int) -> dict[str, float]:
    arrivals = Arrivals(bench)
    with bench.client() as client, bench.beat() as beat:
        client(
            "schedule", first=due, count=entries - due, first_at=time.time() + DAY_SECONDS / 2, apart_seconds=0.1,
            every_seconds=DAY_SECONDS, answer_seconds=900.0,
        )  # fmt: skip
        first_at = float(int(time.time()) + LEAD_SECONDS + due * 0.001)
        apart_seconds = 1 / due
        client(
            "schedule", first=0, count=due, first_at=first_at, apart_seconds=apart_seconds, every_seconds=DAY_SECONDS
        )
        if time.time() > first_at - 2:
            raise BrokenOff("adding what is to be due took until it was due")
        _wait_until(first_at - 1)
        cpu = beat.cpu_seconds()
        arrivals.take(until_at=first_at + 1 + OVERTIME_SECONDS, most=due)
        _require_alive(beat)
        figures = {
            "tick_us": (beat.cpu_seconds() - cpu) / due * 1e6,
        }
        arrivals.take(until_at=time.time() + 1, most=2 * due)
        figures |= arrivals.figures({number: first_at + number * apart_seconds for number in range(due)})
        figures["idle_ms"] = _idle_seconds(beat) * 1e3
        figures["beat_mib"] = beat.peak_mib()
        client("schedule", first=entries, count=1, first_at=time.time() + 1, apart_seconds=0, every_seconds=1.0)
        with bench.beat(1):
            figures["takeover_seconds"] = _takeover(arrivals, beat)
    return figures


def _require_alive(beat: Process) -> None:
    if beat.has_ended:
        raise BrokenOff(f"beat ended: {beat.last_words()}")


def _idle_seconds(beat: Process) -> float:
    """Return the CPU time per second with nothing due."""
    began, cpu = time.monotonic(), beat.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    _require_alive(beat)
    return (beat.cpu_seconds() - cpu) / (time.monotonic() - began)


def _takeover(arrivals: Arrivals, beat: Process) -> float:
    """Kill the leading beat; return how long it takes until another sends a job that is due every second."""
    time.sleep(IDLE_SECONDS)
    arrivals.forget()
    arrivals.take(until_at=time.time() + OVERTIME_SECONDS, most=2)
    killed_at = time.time()
    beat.kill()
    # What the killed beat had sent is there at once.
    time.sleep(LOOK_SECONDS * 10)
    arrivals.take(until_at=time.time(), most=AT_ONCE)
    arrivals.forget()
    arrivals.take(until_at=killed_at + TAKEOVER_SECONDS, most=1)
    if not arrivals.seen:
        raise BrokenOff(f"{TAKEOVER_SECONDS:.0f} s after the beat was killed no other had sent anything")
    return arrivals.seen[0][1] - killed_at


class Arrivals:
    """What was sent: number of the job, and Unix seconds."""

    def __init__(self, bench: Bench) -> None:
        # A Redis: every framework with a beat uses one.
        self._client: Any = bench.store.client  # type: ignore[attr-defined]
        self.seen: list[tuple[int, float]] = []

    def forget(self) -> None:
        self.seen.clear()

    def take(self, *, until_at: float, most: int) -> None:
        """Take sent jobs from the queue, timed to the millisecond, until there are ``most`` or it is ``until_at``."""
        while True:
            for name in LISTS:
                messages = self._client.rpop(name, AT_ONCE) or ()
                at = time.time()
                self.seen += [(int(found[1]), at) for found in map(NAME.search, messages) if found]
            if len(self.seen) >= most or time.time() >= until_at:
                return
            time.sleep(LOOK_SECONDS)

    def figures(self, due_at: dict[int, float]) -> dict[str, float]:
        """Return how late jobs were sent, how many never, and how many twice."""
        counts = Counter(number for number, _ in self.seen)
        late = [at - due_at[number] for number, at in self.seen if number in due_at]
        if len(late) < 2:
            raise BrokenOff(f"of {len(due_at)} jobs that were due {len(late)} were sent")
        cuts = quantiles(late, n=100, method="inclusive")
        return {
            "late_p50_ms": cuts[49] * 1e3,
            "late_p99_ms": cuts[98] * 1e3,
            "early": float(sum(each < 0 for each in late)),
            "missing": float(len(due_at.keys() - counts.keys())),
            "twice": float(sum(counts.values()) - len(counts)),
        }


def _wait_until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))
