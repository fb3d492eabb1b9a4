"""How late delayed tasks start: few, many within five seconds, and few while a million others wait."""

from __future__ import annotations

from statistics import quantiles

from benchmarks.bench import Bench
from benchmarks.frameworks import Variant
from benchmarks.workloads import Parameters

FAR_SECONDS = 36_000.0

SIZES = {
    "smoke": ({"count": 10, "spread_seconds": 1.0},),
    "quick": ({"count": 100, "spread_seconds": 5.0},),
    "full": (
        {"count": 300, "spread_seconds": 10.0},
        {"count": 5_000, "spread_seconds": 5.0},
        {"count": 300, "spread_seconds": 10.0, "waiting": 1_000_000},
    ),
}


def takes_part(variant: Variant, parameters: Parameters) -> bool:
    # With a million, the others would take an hour each to fill.
    return variant.has_delay and (not parameters.get("waiting") or variant.framework == "taskapp")


def measure(bench: Bench, count: int, spread_seconds: float, waiting: int = 0) -> dict[str, float]:
    with bench.client() as client, bench.scheduler(), bench.workers() as running:
        client("round_trips", count=5, pause_seconds=0.01, seed=0)
        if waiting:
            client("wait_far", count=waiting, seconds=FAR_SECONDS, answer_seconds=1_500.0)
            client("forget")
        # Due only after all are submitted: a busy client would delay them.
        lead_seconds = 2.0 + count * 0.003
        store = bench.store.cpu_seconds()
        client("delay", count=count, first_seconds=lead_seconds, spread_seconds=spread_seconds)
        late = client("lateness")["late_seconds"]
        running.require_alive()
        cuts = quantiles(late, n=100, method="inclusive")
        return {
            "late_p50_ms": cuts[49] * 1e3,
            "late_p99_ms": cuts[98] * 1e3,
            "late_max_ms": max(late) * 1e3,
            "early": float(sum(seconds < 0 for seconds in late)),
            "store_us": (bench.store.cpu_seconds() - store) / count * 1e6,
            "worker_mib": running.peak_mib(),
        }
