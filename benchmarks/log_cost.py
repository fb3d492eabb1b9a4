"""What the log of a node costs: worker CPU per task at INFO, which people run, compared with WARNING.

    python -m benchmarks.log_cost [--tasks 20000] [--pairs 6] [--formats text,json]

A pair is one drain of a full queue at each level, the order changing from pair to pair; the ratio is the median of
the pairs' ratios. The task does nothing; INFO writes two lines for each, to a file. ``--keep`` lets
``make bench ARGS=--report`` show the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.frameworks import BY_KEY, Variant
from benchmarks.servers import RedisStore

VARIANTS = ("taskapp-async", "taskapp-def")
START_SECONDS, DRAIN_SECONDS = 40.0, 120.0
SKIPPED = 0.1
"""The part of the queue during which worker and caches warm up."""
LINES_A_TASK = 2
KEPT = Path(__file__).with_suffix(".json")


def at_level(variant: Variant, level: str, log_format: str) -> Variant:
    """Return ``variant`` with its node logging at ``level``."""
    command = variant.command.replace("-l WARNING", f"-l {level}")
    return replace(variant, command=command, environment={**variant.environment, "TASKAPP_LOG_FORMAT": log_format})


def measure(variant: Variant, store: RedisStore, count: int, lines: int) -> float:
    """Return the CPU of the worker for one task, in µs; its log has at least ``lines`` lines then."""
    with tempfile.TemporaryDirectory() as name:
        bench, skipped = Bench(variant, store, Path(name)), int(count * SKIPPED)
        with bench.client() as client:
            client("submit", count=count, how="bulk")
            with bench.workers() as running:
                client("wait_for", index=skipped, within_seconds=START_SECONDS)
                before = running.cpu_seconds()
                first = int(client("done", index=skipped)["done"])
                client("wait_for", index=count - 1, within_seconds=DRAIN_SECONDS)
                spent = running.cpu_seconds() - before
                running.require_alive()
        written = sum(path.read_bytes().count(b"\n") for path in Path(name).glob("*.log"))
        if written < lines:
            sys.exit(f"{variant.title}: {written:,} lines in the log, {lines:,} expected")
    return spent / (count - first) * 1e6


def pairs(ways: Sequence[Callable[[], float]], count: int) -> list[list[float]]:
    """Measure all ``ways`` ``count`` times, every other time in reverse."""
    found = []
    for number in range(count):
        figures: dict[int, float] = {}
        for index in sorted(range(len(ways)), reverse=bool(number % 2)):
            figures[index] = ways[index]()
        found.append([figures[index] for index in range(len(ways))])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000, help="for each level and pair")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--formats", default="text", help="values of TASKAPP_LOG_FORMAT")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="keys of benchmarks.frameworks")
    parser.add_argument("--keep", action="store_true", help=f"write the figures to {KEPT.name}")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        store = RedisStore(Path(name))
        try:
            store.await_ready()
            for log_format in options.formats.split(","):
                for key in options.variants.split(","):
                    found.append(_compared(BY_KEY[key], log_format, store, options.tasks, options.pairs))
                    print(_told(found[-1]), flush=True)
        finally:
            store.close()
    if options.keep:
        KEPT.write_text(json.dumps(found, indent=1) + "\n")


def _compared(variant: Variant, log_format: str, store: RedisStore, tasks: int, count: int) -> dict[str, Any]:
    quiet, usual = (at_level(variant, level, log_format) for level in ("WARNING", "INFO"))
    found = pairs(
        (partial(measure, quiet, store, tasks, 0), partial(measure, usual, store, tasks, LINES_A_TASK * tasks)), count
    )
    warning, info = (statistics.median(figures) for figures in zip(*found, strict=True))
    ratios = [info / warning for warning, info in found]
    return {"title": variant.title, "format": log_format, "warning": warning, "info": info, "ratios": ratios}


def _told(found: dict[str, Any]) -> str:
    return (
        f"{found['title']}, {found['format']}: WARNING {found['warning']:.0f} µs, INFO {found['info']:.0f} µs, "
        f"{statistics.median(found['ratios']):.2f} times ({' '.join(f'{each:.2f}' for each in found['ratios'])})"
    )


def section() -> list[str]:
    """Return what ``docs/benchmarks.md`` says of it, if it was measured."""
    if not KEPT.exists():
        return []
    rows = [
        f"| **{each['title']}** | {each['format']} | {each['warning']:.0f} | {each['info']:.0f} | "
        f"{statistics.median(each['ratios']):.2f} | {min(each['ratios']):.2f} to {max(each['ratios']):.2f} |"
        for each in json.loads(KEPT.read_text())
    ]
    return [
        "## The log at INFO\n\nWorker CPU per task that does nothing, µs: at INFO, with two lines in a file for each,"
        " and at WARNING in the same\nrun (`python -m benchmarks.log_cost`).\n\n"
        "|  | format | WARNING | INFO | ratio, median | of the pairs |\n| --- | --- | ---: | ---: | ---: | ---: |\n"
        + "\n".join(rows)
        + "\n"
    ]


if __name__ == "__main__":
    main()
