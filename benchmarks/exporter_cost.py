"""What monitoring costs: CPU of ``taskapp exporter`` and of Redis per scrape, with the maximum number of series.

    python -m benchmarks.exporter_cost [--scrapes 100]

A scrape reads totals and looks once at all queues, so it costs the same whether five or five million tasks ran since
the last one. The cost that grows with tasks is paid where they run: counting is part of the step that settles them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
import urllib.request
from itertools import product
from pathlib import Path

from benchmarks.processes import Process
from benchmarks.servers import RedisStore
from taskapp.engine.counters import BAR, RUN_BUCKETS_SECONDS, WAIT_BUCKETS_SECONDS

TYPES = 200
QUEUES = ("critical", "high", "default", "low")
NODES = 100
EVERY_SECONDS = 15
"""Scrape interval in ``deploy/prometheus``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scrapes", type=int, default=100)
    scrapes = parser.parse_args().scrapes
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        store = RedisStore(directory)
        exporter = None
        try:
            store.await_ready()
            fill(store)
            exporter, url = start(store, directory)
            measure(store, exporter, url, scrapes)
        finally:
            if exporter is not None:
                exporter.end()
            store.close()


def fill(store: RedisStore) -> None:
    """Store the data of a large deployment: totals for every possible label, and nodes."""
    totals = {
        BAR.join((what, f"shop.task_{number}", queue)): 1_000
        for what, number, queue in product(("received", "completed", "failed", "retried"), range(TYPES), QUEUES)
    }
    totals |= {BAR.join(("run", repr(le), f"shop.task_{n}")): 10 for le in RUN_BUCKETS_SECONDS for n in range(TYPES)}
    totals |= {BAR.join(("wait", repr(le), queue)): 10 for le in WAIT_BUCKETS_SECONDS for queue in QUEUES}
    store.client.hset("taskapp:totals", mapping=totals)
    ends = (time.time() + 3_600) * 1_000
    store.client.zadd("taskapp:leases", {f"{number:032x}": ends for number in range(NODES)})
    about = '{"name": "celery@pod-%d", "slots": {"async": 1000}, "used": {"async": 10}, "queues": ["default"]}'
    store.client.hset("taskapp:nodes", mapping={f"{number:032x}": about % number for number in range(NODES)})


def start(store: RedisStore, directory: Path) -> tuple[Process, str]:
    """Start the exporter; return it and its URL."""
    environment = {
        **os.environ,
        "TASKAPP_BROKER_URL": store.url,
        "TASKAPP_ENV_FILE": "",
        "TASKAPP_DATA_DIR": str(directory),
    }
    argv = [sys.executable, "-m", "taskapp", "exporter", "--port", "0"]
    exporter = Process(argv, environment, directory / "exporter.log")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := re.search(r"metrics at (http://\S+)", (directory / "exporter.log").read_text()):
            return exporter, found.group(1)
        time.sleep(0.05)
    raise SystemExit(f"the exporter did not start: {exporter.last_words()}")


def measure(store: RedisStore, exporter: Process, url: str, scrapes: int) -> None:
    """Scrape repeatedly and print the cost."""
    page = fetch(url)
    before = exporter.cpu_seconds(), store.cpu_seconds(), time.perf_counter()
    for _ in range(scrapes):
        fetch(url)
    took_ms = (time.perf_counter() - before[2]) / scrapes * 1_000
    exporter_ms = (exporter.cpu_seconds() - before[0]) / scrapes * 1_000
    redis_ms = (store.cpu_seconds() - before[1]) / scrapes * 1_000
    series = sum(not line.startswith("#") for line in page.splitlines())
    print(f"{series:,} series, {len(page) / 1024:,.0f} KiB, {NODES} nodes: a scrape takes {took_ms:.0f} ms")
    print(f"CPU a scrape: exporter {exporter_ms:.1f} ms, Redis {redis_ms:.2f} ms")
    share = (exporter_ms + redis_ms) / EVERY_SECONDS / 10
    print(f"every {EVERY_SECONDS} s: {share:.2f} % of a core")


def fetch(url: str) -> str:
    """Scrape once."""
    with urllib.request.urlopen(url, timeout=30) as response:
        return str(response.read().decode())


if __name__ == "__main__":
    main()
