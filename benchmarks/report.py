"""Writes ``docs/benchmarks.md`` and its chart from the stored figures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from string import ascii_lowercase

from benchmarks import budget, chart, log_cost
from benchmarks.frameworks import BY_KEY, EARLY, VARIANTS
from benchmarks.records import Record, Records
from benchmarks.tables import Column, across, markdown, table

INSTALL_AND_START = Path(__file__).with_name("install_and_start.md")

HEAD = """# Benchmarks

For contributors: what a task costs with taskapp and with other frameworks, on the same machine in the same run.

`make bench` writes this page from `benchmarks/results.json`; a new measurement replaces the earlier one.

    make bench                                            # quick: a few minutes per framework
    make bench ARGS="--size full"                         # everything below, several hours
    make bench ARGS="--only taskapp,celery --workloads drain,latency --rounds 5"
    make bench ARGS=--list                                # show what would be measured
    make bench ARGS=--report                              # write only this page and its chart

Each framework is installed into its own virtual environment, with the versions pinned in `benchmarks/peers`, and uses
the same Redis, which writes nothing to disk (procrastinate uses a PostgreSQL with default settings). Figures are
medians over the rounds; within a round the frameworks are measured one after the other. Compare the CPU time (user and
system) of all processes of a worker: rates and latencies depend on what else the machine is doing. Figures of
different runs are never compared. The task does nothing and returns its number; its result is stored, read back and
checked. All frameworks acknowledge after the run, except those marked ¹, which lose a task that was running when its
worker died. taskapp and Celery are measured without task events, Celery's default; events have rows of their own.

![CPU per task](benchmarks.svg)
"""

DRAIN = (
    Column("worker, µs", "worker_us"),
    Column("vs taskapp", "worker_us", 1, is_ratio=True),
    Column("store, µs", "store_us"),
    Column("read back, µs", "read_back_us"),
    Column("tasks/s", "tasks_per_second"),
    Column("no result", "missing"),
)
SUBMIT = (
    Column("client, µs", "client_us"),
    Column("vs taskapp", "client_us", 1, is_ratio=True),
    Column("store, µs", "store_us"),
    Column("tasks/s", "tasks_per_second"),
)
LATENCY = (
    Column("start p50, ms", "start_p50_ms", 1),
    Column("p99", "start_p99_ms", 1),
    Column("result p50, ms", "result_p50_ms", 1),
    Column("p99", "result_p99_ms", 1),
    Column("worker, µs", "worker_us"),
)
IN_FLIGHT = (
    Column("took, s", "seconds", 1),
    Column("at once", "at_once"),
    Column("memory, MiB", "peak_mib"),
    Column("idle, MiB", "idle_mib"),
    Column("worker, µs", "worker_us"),
)
DELAYED = (
    Column("late p50, ms", "late_p50_ms", 1),
    Column("p99", "late_p99_ms", 1),
    Column("max", "late_max_ms", 1),
    Column("too early", "early"),
    Column("worker, MiB", "worker_mib"),
)
SCHEDULES = (
    Column("sent minus due p50, ms", "late_p50_ms", 1),
    Column("p99", "late_p99_ms", 1),
    Column("not sent", "missing"),
    Column("sent twice", "twice"),
    Column("beat per tick, µs", "tick_us"),
    Column("idle second, ms CPU", "idle_ms", 1),
    Column("beat, MiB", "beat_mib"),
    Column("takeover after kill -9, s", "takeover_seconds", 1),
)


def write(records: Records, docs: Path) -> str:
    """Write the page and the chart; return the table shown at the end of a run."""
    runs = dict(zip(sorted(records.runs), ascii_lowercase, strict=False))
    draining = table(records.newest("drain"), DRAIN, runs)
    sections = [
        HEAD,
        "## Budget\n\n" + budget.write(records),
        "## A no-op task\n\nFrom a full queue, with one worker.\n\n" + draining,
        *_many("Submitting", "submit", SUBMIT, records, runs),
        "## Latency\n\nOne task at a time, an idle worker: from before the submit to the start of the task, and to when"
        " the caller has\nits result. The worker's CPU per task includes the cost of waiting.\n\n"
        + table(records.newest("latency"), LATENCY, runs),
        *_many("In flight: tasks that sleep one second", "in_flight", IN_FLIGHT, records, runs),
        *_many("Delayed tasks", "delayed", DELAYED, records, runs),
        *_many("Timed jobs", "schedules", SCHEDULES, records, runs),
        *log_cost.section(),
        "## Cost against growth\n\nCPU of the workers per task, µs.\n\n" + _growth(records),
        "## Install and start\n\n`python -m benchmarks.install_and_start` measures and writes this part.\n\n"
        + INSTALL_AND_START.read_text(),
        "## Frameworks\n\n" + _settings(records),
        "## Runs\n\n" + _runs(records, runs),
    ]
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text("\n".join(sections))
    chart.draw(records, docs / "benchmarks.svg")
    return draining


def _many(
    heading: str, workload: str, columns: tuple[Column, ...], records: Records, runs: dict[str, str]
) -> list[str]:
    """Return one table per parameter set of a workload."""
    found = records.of(workload)
    parameters = sorted({_told(record) for record in found})
    tables = [
        f"*{told}*\n\n" + table([record for record in found if _told(record) == told], columns, runs)
        for told in parameters
    ]
    return [f"## {heading}\n", *(tables or ["Not measured.\n"])]


WORDS = {
    "count": "{:,} tasks",
    "how": "{}",
    "spread_seconds": "over {:.0f} s",
    "waiting": "while {:,} others wait",
    "behind": "{:,}",
    "workers": "{}",
    "bytes": "{:,} B",
    "entries": "{:,} entries",
    "due": "{:,} of them due within one second",
}


def _told(record: Record) -> str:
    """Return the parameters of a record in words: ``300 tasks, over 10 s``."""
    return ", ".join(WORDS[name].format(value) for name, value in record.parameters.items())


def _growth(records: Records) -> str:
    parts = []
    for told, name in (("tasks waiting behind them", "behind"), ("workers", "workers"), ("payload", "bytes")):
        found = [record for record in records.of("growth") if name in record.parameters]
        values = sorted({record.parameters[name] for record in found})
        headings = [WORDS[name].format(value) for value in values]
        parts.append(f"*{told}*\n\n" + _growth_table(found, headings, name))
    return "\n".join(parts)


def _growth_table(found: Iterable[Record], headings: list[str], name: str) -> str:
    return across(found, headings, lambda record: WORDS[name].format(record.parameters[name]), "worker_us")


def _settings(records: Records) -> str:
    """Return how each worker was started, and the versions."""
    measured = {record.variant for record in records.records}
    versions = {name: told for run in sorted(records.runs) for name, told in records.runs[run].versions.items()}
    lines = []
    for variant in VARIANTS:
        if variant.key in measured:
            marks = [variant.note] if variant.note else []
            if variant.acknowledges == EARLY:
                marks.insert(0, "¹ acknowledges before the run")
            command = (variant.command or variant.beat).replace("BIN/", "").replace("{slots}", str(variant.slots))
            lines.append([variant.title, f"`{command}`", "; ".join(marks)])
    headings = ["", "worker", ""]
    told = markdown(headings, lines).replace("---:", "---")
    return told + "\n" + "".join(f"- {versions[name]}\n" for name in sorted(versions) if _is_used(name, measured))


def _is_used(framework: str, measured: set[str]) -> bool:
    return any(BY_KEY[key].framework == framework for key in measured)


def _runs(records: Records, runs: dict[str, str]) -> str:
    lines = [
        [runs[name], run.started[:16].replace("T", " ") + " UTC", run.machine, f"{run.python}, {run.stores}", run.size,
         str(run.rounds), f"{run.load:.1f}"]
        for name, run in sorted(records.runs.items())
    ]  # fmt: skip
    headings = ["", "started", "machine", "Python, store", "size", "rounds", "load before"]
    return markdown(headings, lines).replace("---:", "---")
