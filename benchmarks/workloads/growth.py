"""What a task costs as the queue, the number of workers and the payload grow."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.frameworks import Variant
from benchmarks.workloads import Parameters, drain

COUNT = 4_000
WARM_UP = 200
HUGE = 100_000
"""Most frameworks take too long to fill longer queues."""

SIZES = {
    "smoke": ({"count": COUNT, "behind": 1_000}, {"count": 200, "workers": 2}),
    "quick": ({"count": COUNT, "behind": 20_000}, {"count": COUNT, "workers": 2}, {"count": 3_000, "bytes": 10_000}),
    "full": (
        *({"count": COUNT, "behind": behind} for behind in (1_000, 10_000, 100_000, 1_000_000)),
        *({"count": 2 * COUNT, "workers": workers} for workers in (1, 2, 4, 8)),
        *({"count": COUNT, "bytes": size} for size in (100, 1_000, 10_000)),
        {"count": COUNT, "bytes": 100_000},
        {"count": 2_500, "bytes": 1_000_000},
    ),
}


def takes_part(variant: Variant, parameters: Parameters) -> bool:
    return variant.grows and (parameters.get("behind", 0) <= HUGE or variant.framework in ("taskapp", "floor"))


def measure(bench: Bench, count: int, workers: int = 0, **parameters: int) -> dict[str, float]:
    """Run ``count`` tasks, shared by ``workers`` if given, otherwise as in ``drain``."""
    return _shared(bench, count, workers) if workers else drain.measure(bench, count, **parameters)


def _shared(bench: Bench, count: int, workers: int) -> dict[str, float]:
    """Submit to running workers: from a full queue the first one to start would take everything."""
    how = "bulk" if bench.variant.has_bulk else "one by one"
    with bench.client() as client, bench.workers(count=workers) as running:
        client("submit", count=WARM_UP, how=how)
        client("missing", within_seconds=drain.START_SECONDS)
        running.await_idle()
        client("forget")
        worker, store = running.cpu_seconds(), bench.store.cpu_seconds()
        client("submit", count=count, how=how)
        missing = client("missing", within_seconds=drain.DRAIN_SECONDS)["missing"]
        running.require_alive()
        return {
            "worker_us": (running.cpu_seconds() - worker) / count * 1e6,
            "store_us": (bench.store.cpu_seconds() - store) / count * 1e6,
            "missing": missing,
        }
