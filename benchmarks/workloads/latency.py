"""How long a task waits for an idle worker, and its caller for the result."""

from __future__ import annotations

from statistics import quantiles

from benchmarks.bench import Bench
from benchmarks.frameworks import Variant
from benchmarks.workloads import Parameters

WARM_UP = 20

SIZES = {"smoke": ({"count": 10},), "quick": ({"count": 100},), "full": ({"count": 500},)}


def takes_part(variant: Variant, _parameters: Parameters) -> bool:
    return variant.framework != "floor"


def measure(bench: Bench, count: int, pause_seconds: float = 0.02) -> dict[str, float]:
    with bench.client() as client, bench.workers() as running:
        client("round_trips", count=WARM_UP, pause_seconds=pause_seconds, seed=0)
        worker = running.cpu_seconds()
        taken = client("round_trips", count=count, pause_seconds=pause_seconds, seed=count)
        running.require_alive()
        return {
            **_quantiles("start", taken["started_seconds"]),
            **_quantiles("result", taken["ended_seconds"]),
            "worker_us": (running.cpu_seconds() - worker) / count * 1e6,
        }


def _quantiles(name: str, seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p50_ms": cuts[49] * 1e3, f"{name}_p99_ms": cuts[98] * 1e3}
