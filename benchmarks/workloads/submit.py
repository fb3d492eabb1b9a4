"""What submitting costs the client and the store, while no worker runs."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.frameworks import Variant
from benchmarks.workloads import Parameters

WARM_UP = 100

SIZES = {
    "smoke": ({"how": "one by one", "count": 50}, {"how": "bulk", "count": 200}),
    "quick": ({"how": "one by one", "count": 1_000}, {"how": "bulk", "count": 5_000}),
    "full": ({"how": "one by one", "count": 5_000}, {"how": "bulk", "count": 20_000}),
}


def takes_part(variant: Variant, parameters: Parameters) -> bool:
    return variant.submits and (variant.has_bulk or parameters["how"] != "bulk")


def measure(bench: Bench, how: str, count: int) -> dict[str, float]:
    with bench.client() as client:
        client("submit", count=WARM_UP, how=how)
        client("forget")
        store = bench.store.cpu_seconds()
        taken = client("submit", count=count, how=how)
        return {
            "client_us": taken["cpu_seconds"] / count * 1e6,
            "store_us": (bench.store.cpu_seconds() - store) / count * 1e6,
            "tasks_per_second": count / taken["wall_seconds"],
        }
