"""How many sleeping tasks one worker holds at once, how long it takes, and how much memory it uses."""

from __future__ import annotations

from itertools import accumulate

from benchmarks.bench import Bench
from benchmarks.frameworks import Variant
from benchmarks.workloads import Parameters

WARM_UP = 20

SIZES = {
    "smoke": ({"count": 100},),
    "quick": ({"count": 1_000},),
    "full": ({"count": 10_000}, {"count": 100_000}),
}


def takes_part(variant: Variant, parameters: Parameters) -> bool:
    return variant.naps_at_once >= parameters["count"]


def measure(bench: Bench, count: int, seconds: float = 1.0) -> dict[str, float]:
    """Start a worker on a queue of naps, to measure how fast it takes them, not how fast they are submitted."""
    how = "bulk" if bench.variant.has_bulk else "one by one"
    with bench.client() as client:
        with bench.workers(slots=count) as running:
            client("submit", count=WARM_UP, name="nap", seconds=0.0)
            client("results")
            idle_mib, started = running.peak_mib(), running.cpu_seconds()
        client("forget")
        client("submit", count=count, how=how, name="nap", seconds=seconds)
        with bench.workers(slots=count) as running:
            client("wait_for", index=count - 1, within_seconds=120.0)
            naps = client("results")["results"]
            running.require_alive()
            return {
                "seconds": max(ended for _started, ended in naps) - min(started for started, _ended in naps),
                "at_once": _most_at_once(naps),
                "idle_mib": idle_mib,
                "peak_mib": running.peak_mib(),
                "worker_us": (running.cpu_seconds() - started) / count * 1e6,
            }


def _most_at_once(naps: list[list[float]]) -> float:
    moments = sorted([(started, 1) for started, _ended in naps] + [(ended, -1) for _started, ended in naps])
    return float(max(accumulate(step for _at, step in moments)))
