"""What a no-op task costs the worker and the store, from a full queue; every result is read back."""

from __future__ import annotations

import time

from benchmarks.bench import Bench
from benchmarks.frameworks import Variant
from benchmarks.processes import BrokenOff
from benchmarks.workloads import Parameters

START_SECONDS = 40.0
DRAIN_SECONDS = 100.0
STRAGGLERS_SECONDS = 10.0
SKIPPED = 0.2
"""Share of the queue that warms up worker and caches; the rest is measured."""

LEAST = 0.3
"""Share of the queue that must be left for the measurement."""

SIZES = {"smoke": ({"count": 2_500},), "quick": ({"count": 4_000},), "full": ({"count": 10_000},)}


def takes_part(_variant: Variant, _parameters: Parameters) -> bool:
    return True


def measure(bench: Bench, count: int, bytes: int = 0, behind: int = 0) -> dict[str, float]:
    """Drain a queue with one worker.

    Args:
        bench: The bench.
        count: Number of tasks to run.
        bytes: Size of the payload of each.
        behind: Number of further tasks that wait in the queue throughout and are not run.
    """
    how = "bulk" if bench.variant.has_bulk else "one by one"
    first = int(count * SKIPPED)
    with bench.client() as client:
        client("submit", count=count + behind, how=how, bytes=bytes)
        with bench.workers() as running:
            client("wait_for", index=first, within_seconds=START_SECONDS)
            began, worker, store = time.perf_counter(), running.cpu_seconds(), bench.store.cpu_seconds()
            # Workers that settle in batches are further than the task that was waited for.
            first = int(client("done", index=first)["done"])
            client("wait_for", index=count - 1, within_seconds=DRAIN_SECONDS)
            worker, store = running.cpu_seconds() - worker, bench.store.cpu_seconds() - store
            wall, figures = time.perf_counter() - began, {}
            if not behind:
                # The last task submitted is not necessarily the last one done.
                figures = client("missing", within_seconds=STRAGGLERS_SECONDS)
                figures["read_back_us"] = client("read_back")["cpu_seconds"] / (count - figures["missing"]) * 1e6
            running.require_alive()
        done = count - first
        if done < count * LEAST:
            raise BrokenOff(f"{first:,} of {count:,} tasks were done at once: too few are left to measure")
        return {
            "worker_us": worker / done * 1e6,
            "store_us": store / done * 1e6,
            "tasks_per_second": done / wall,
            **figures,
        }
