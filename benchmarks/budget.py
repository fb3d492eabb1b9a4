"""The budget: the goals, what taskapp reaches, and the best of the others in the same run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.frameworks import BY_KEY, EARLY
from benchmarks.records import Record, Records
from benchmarks.tables import NONE, REFERENCE, TIMES, markdown, number


@dataclass(frozen=True)
class Goal:
    """Upper limit of one figure of one workload."""

    told: str
    workload: str
    figure: str
    most: float
    unit: str
    parameters: dict[str, Any] = field(default_factory=dict)
    digits: int = 0
    obstacle: str = ""
    """Why it is missed, if it is."""


COLD = (
    "a worker that runs one task at a time runs it from cold caches. The steps that take 0.1 ms of CPU with a full "
    "queue take more than ten times that, in Celery's request and event classes, kombu's hub and ours. Whatever else "
    "the machine does adds to it"
)
COUNTED = (
    "the worker also counts how each run ended, how long it waited and how long it took. That takes about 18 µs, "
    "which the budget does not include; in return, monitoring costs the worker nothing"
)
DELAY = (
    "besides the round trip, which a client without a framework makes as well (see Submitting), a task has Celery's "
    "headers, its signals and an AsyncResult"
)
BULK = "each task has its own id, an AsyncResult and, with events on, a task-sent event"

GOALS = (
    Goal("worker, CPU per task", "drain", "worker_us", 100, "µs", obstacle=COUNTED),
    Goal("`delay()`, CPU of the client", "submit", "client_us", 90, "µs", {"how": "one by one"}, obstacle=DELAY),
    Goal("in bulk, CPU of the client per task", "submit", "client_us", 20, "µs", {"how": "bulk"}, obstacle=BULK),
    Goal("waiting for an idle worker, p50", "latency", "start_p50_ms", 1, "ms", digits=1, obstacle=COLD),
    Goal("waiting for an idle worker, p99", "latency", "start_p99_ms", 5, "ms", digits=1, obstacle=COLD),
    Goal("from submit to result, p99", "latency", "result_p99_ms", 10, "ms", digits=1, obstacle=COLD),
    Goal("lateness of 300 delayed tasks, p99", "delayed", "late_p99_ms", 4, "ms", {"count": 300}, 1, COLD),
    Goal("… with a million waiting, p99", "delayed", "late_p99_ms", 10, "ms", {"waiting": 1_000_000}, 1, COLD),
    Goal("10,000 sleeps of 1 s", "in_flight", "seconds", 5, "s", {"count": 10_000}, 1),
    Goal("100,000 sleeps, memory", "in_flight", "peak_mib", 1_024, "MiB", {"count": 100_000}),
)


def write(records: Records) -> str:
    """Return the table of all goals that were measured, and of the floor."""
    lines = [line for goal in GOALS if (line := _line(goal, records))]
    if floor := _floor_line(records):
        lines.insert(1, floor)
    if not lines:
        return "Not measured.\n"
    return markdown(["", "goal", "taskapp", "", "best other framework"], lines) + _obstacles(records)


def _obstacles(records: Records) -> str:
    """Return which goals are missed, by how much, and why."""
    missed: dict[str, list[str]] = {}
    for goal in GOALS:
        value = _ours(goal, records)
        if value is not None and value > goal.most:
            missed.setdefault(goal.obstacle, []).append(f"{goal.told} (by {value / goal.most - 1:.0%})")
    return "".join(f"\nMissed: {', '.join(told)}. Why: {obstacle}.\n" for obstacle, told in missed.items())


def _ours(goal: Goal, records: Records) -> float | None:
    found = (record for record in records.newest(goal.workload, **goal.parameters) if _is_meant(record, goal))
    ours = next((record for record in found if record.variant == REFERENCE), None)
    return ours.median(goal.figure) if ours else None


def _line(goal: Goal, records: Records) -> list[str] | None:
    found = [record for record in records.newest(goal.workload, **goal.parameters) if _is_meant(record, goal)]
    ours = next((record for record in found if record.variant == REFERENCE), None)
    value = ours.median(goal.figure) if ours else None
    if ours is None or value is None:
        return None
    others = [
        (median, BY_KEY[record.variant].title + (" ¹" if BY_KEY[record.variant].acknowledges == EARLY else ""))
        for record in found
        if BY_KEY[record.variant].framework not in ("taskapp", "floor") and record.run == ours.run
        if (median := record.median(goal.figure)) is not None
    ]
    best = min(others, default=None)
    told = f"{number(best[0], goal.digits)} {goal.unit}, {best[1]}" if best else NONE
    verdict = "reached" if value <= goal.most else "missed"
    shown = f"{number(value, goal.digits)} {goal.unit}"
    return [goal.told, f"≤ {number(goal.most)} {goal.unit}", shown, verdict, told]


def _is_meant(record: Record, goal: Goal) -> bool:
    """Distinguish 300 delayed tasks from 300 with a million behind them."""
    return ("waiting" in record.parameters) == ("waiting" in goal.parameters)


def _floor_line(records: Records) -> list[str] | None:
    of = {record.variant: record for record in records.newest("drain")}
    ours, floor = of.get(REFERENCE), of.get("floor")
    if ours is None or floor is None or ours.run != floor.run:
        return None
    value, base = ours.median("worker_us"), floor.median("worker_us")
    if value is None or base is None:
        return None
    verdict = "reached" if value <= 4 * base else "missed"
    return [
        "… compared with no framework at all",
        f"≤ 4 {TIMES}",
        f"{value / base:.1f} {TIMES}",
        verdict,
        f"the floor is {base:.0f} µs",
    ]
