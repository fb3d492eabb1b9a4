"""``python -m benchmarks``: measure, store the figures, write ``docs/benchmarks.md`` and its chart."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks import records, workloads
from benchmarks.driver import Driver, choose
from benchmarks.frameworks import VARIANTS, Variant
from benchmarks.records import Records

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    arguments = _arguments()
    measurements = choose(arguments.workloads, arguments.only, arguments.size)
    if arguments.list:
        print(*measurements, sep="\n")
        return
    if not arguments.report:
        # Exit regularly, so that everything started is stopped on a plain kill as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        _measure(Driver(measurements, arguments.size, arguments.rounds), arguments.json)
    from benchmarks.report import write  # its import takes a second, which the first measurement would pay

    print(write(Records.load(arguments.json), arguments.docs))


def _measure(driver: Driver, path: Path) -> None:
    """Measure, and store the figures even if interrupted."""
    try:
        driver.measure()
    finally:
        kept = Records.load(path)
        kept.merge(driver.run, driver.records.values())
        kept.save(path)


def _variants(text: str) -> list[Variant]:
    chosen = [variant for variant in VARIANTS for name in text.split(",") if name in (variant.key, variant.framework)]
    if unknown := {name for name in text.split(",") if name not in {n for v in VARIANTS for n in (v.key, v.framework)}}:
        known = ", ".join(variant.key for variant in VARIANTS)
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {known}")
    return chosen


def _workloads(text: str) -> list[str]:
    if unknown := set(text.split(",")) - set(workloads.NAMES):
        known = ", ".join(workloads.NAMES)
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {known}")
    return text.split(",")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=("smoke", "quick", "full"), default="quick")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often to measure each figure")
    parser.add_argument(
        "--only", type=_variants, default=VARIANTS, metavar="NAMES", help="comma-separated frameworks or variants"
    )
    parser.add_argument("--workloads", type=_workloads, default=workloads.NAMES, metavar="NAMES")
    parser.add_argument("--list", action="store_true", help="show what would be measured")
    parser.add_argument("--report", action="store_true", help="measure nothing, only write the page and its chart")
    parser.add_argument("--json", type=Path, default=records.PATH, metavar="FILE", help="where the figures are stored")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER", help="where the page is written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
