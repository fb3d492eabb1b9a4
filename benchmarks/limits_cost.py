"""What limits cost: CPU of one node and of Redis per task, of limited tasks compared with the same tasks without.

    python -m benchmarks.limits_cost [--keys 100000] [--pairs 12]

Each limited task is unique, counts for a rate (which never holds it up) and has a fair key, with as many different keys
as there are tasks. Both kinds are measured in turn, so that a busy machine affects both alike: the queue is filled, a
node starts, and the CPU time from a tenth to nine tenths of the tasks counts. Printed are the medians of the ratios and
the middle half of them.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import cpu_seconds_of
from benchmarks.servers import RedisStore

KINDS = {"plain": "", "limited": ', unique_key="{key}", rate_limit="1000000/s", rate_key="{key}", fair_key="{key}"'}
TASKS = """
from celery import shared_task

@shared_task(name="limits_cost.noop"{options})
async def noop(key: int) -> None:
    return None
"""
SUBMIT = "import taskapp.celery, limited_tasks; limited_tasks.noop.submit_many([(key,) for key in range({keys})])"
LOOK_SECONDS, DRAIN_SECONDS = 0.02, 300.0


class Cost(NamedTuple):
    """CPU per task in µs."""

    node: float
    redis: float


def measure(store: RedisStore, kind: str, keys: int) -> Cost:
    """Drain a queue of ``keys`` tasks."""
    store.empty()
    with tempfile.TemporaryDirectory(prefix="taskapp-limits-") as name:
        folder = Path(name)
        (folder / "limited_tasks.py").write_text(TASKS.format(options=KINDS[kind]))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TASKAPP_", "CELERY_"))}
        environment = {
            **kept, "TASKAPP_ENV_FILE": "", "TASKAPP_BROKER_URL": store.url, "TASKAPP_INCLUDE": "limited_tasks",
            "TASKAPP_DATA_DIR": name, "PYTHONPATH": name,
        }  # fmt: skip
        subprocess.run([sys.executable, "-c", SUBMIT.format(keys=keys)], env=environment, cwd=folder, check=True)
        with (folder / "node.log").open("w+") as log:
            node = subprocess.Popen(worker(), env=environment, cwd=folder, stdout=log, stderr=log)
            try:
                return drained(store, node, keys)
            finally:
                node.send_signal(signal.SIGKILL)
                node.wait()


def worker() -> list[str]:
    """Return the command that starts a node."""
    return [sys.executable, "-m", "celery", "-A", "taskapp", "worker", "-l", "WARNING", "-c", "4"]


def drained(store: RedisStore, node: subprocess.Popen[bytes], keys: int) -> Cost:
    """Return what the middle eight tenths of the tasks cost."""
    began = await_completed(store, node, keys // 10)
    before = Cost(cpu_seconds_of(node.pid), store.cpu_seconds())
    ended = await_completed(store, node, keys * 9 // 10)
    after = Cost(cpu_seconds_of(node.pid), store.cpu_seconds())
    return Cost(*((end - start) / (ended - began) * 1e6 for start, end in zip(before, after, strict=True)))


def await_completed(store: RedisStore, node: subprocess.Popen[bytes], number: int) -> int:
    """Wait until this number of tasks is completed; return how many are."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < deadline and node.poll() is None:
        if (done := completed(store.client.hgetall("taskapp:totals"))) >= number:
            return done
        time.sleep(LOOK_SECONDS)
    sys.exit(f"{number:,} tasks were not completed within {DRAIN_SECONDS:.0f} s")


def completed(totals: Mapping[bytes, bytes]) -> int:
    """Return how many tasks are completed."""
    return sum(int(number) for name, number in totals.items() if name.startswith(b"completed"))


def main() -> None:
    """Measure in pairs, and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=12)
    options = parser.parse_args()
    pairs: list[tuple[Cost, Cost]] = []
    with tempfile.TemporaryDirectory(prefix="taskapp-limits-") as name:
        store = RedisStore(Path(name))
        try:
            store.await_ready()
            for number in range(options.pairs):
                order = list(KINDS) if number % 2 == 0 else list(KINDS)[::-1]
                costs = {kind: measure(store, kind, options.keys) for kind in order}
                pairs.append((costs["plain"], costs["limited"]))
                print(
                    number + 1,
                    *(f"{kind}: node {cost.node:.1f} µs, Redis {cost.redis:.1f} µs" for kind, cost in costs.items()),
                    flush=True,
                )
        finally:
            store.close()
    for what, ratios in {
        "node": [limited.node / plain.node for plain, limited in pairs],
        "Redis": [limited.redis / plain.redis for plain, limited in pairs],
        "both": [sum(limited) / sum(plain) for plain, limited in pairs],
    }.items():
        low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        print(f"{what}: {median:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
