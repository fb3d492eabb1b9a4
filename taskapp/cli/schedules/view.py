"""How people and programs see schedules."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from rich.cells import cell_len

from taskapp.app.masks import seen_fields
from taskapp.celery import app
from taskapp.sanitize import sanitize
from taskapp.schedules.formatting import NOTHING, local_text, moment, when_text
from taskapp.schedules.record import LeaderInfo, ScheduleRecord, Tick
from taskapp.schedules.times import duration_text, offset_change

MEASURED_ROWS = 500
"""The widths of columns are those of the first rows; the others are not waited for."""
WIDEST = 60
HEADINGS = ("NAME", "TASK", "WHEN", "ZONE", "NEXT DUE", "STATE", "LAST RUN", "MISSED", "SKIPPED")
TICK_HEADINGS = ("DUE", "SENT", "LATE BY", "STATE", "TOOK", "TASK ID")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table as its rows come, each cell sanitized."""
    rows = ([sanitize(text) for text in row] for row in rows)
    first = list(islice(rows, MEASURED_ROWS))
    widths = [min(max(map(cell_len, column)), WIDEST) for column in zip(headings, *first, strict=True)]
    for row in chain([headings], first, rows):
        cells = [text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def row(known: ScheduleRecord) -> tuple[str, ...]:
    """Return the cells of one schedule in a list of them."""
    schedule, zone = known.schedule, known.schedule.local_zone
    return (
        schedule.name, schedule.task, when_text(schedule), zone,
        local_text(known.due_at, zone) if known.state == "active" else NOTHING,
        known.state, _last_text(known.last), str(known.missed), str(known.skipped),
    )  # fmt: skip


def _last_text(tick: Tick | None) -> str:
    return f"{tick.state} {ago(tick.sent_at)}" if tick is not None else NOTHING


def tick_row(tick: Tick, zone: str) -> tuple[str, ...]:
    """Return the cells of one tick."""
    took = f"{tick.took_seconds:.3f} s" if tick.took_seconds is not None else NOTHING
    return (
        local_text(tick.due_at, zone), local_text(tick.sent_at, zone), f"{tick.sent_at - tick.due_at:.3f} s",
        tick.state, took, tick.id,
    )  # fmt: skip


def as_json(known: ScheduleRecord) -> dict[str, Any]:
    """Return what programs see of one schedule."""
    return {
        **seen(known), "state": known.state,
        "due_at": known.due_at if known.state == "active" else None,
        "paused": known.paused, "broken": known.broken, "runs": known.runs, "missed": known.missed,
        "skipped": known.skipped, "failures": known.failures, "unfinished": known.unfinished,
        "last": known.last._asdict() if known.last is not None else None,
    }  # fmt: skip


def seen(known: ScheduleRecord) -> dict[str, Any]:
    """Return what a schedule says; what its task type masks, masked."""
    return seen_fields(app, known.schedule.task, known.schedule.as_dict())


def leader_text(leader: LeaderInfo) -> str:
    """Say which beat leads."""
    tick = f"last tick {ago(leader.tick_at)}" if leader.tick_at is not None else "no tick yet"
    return f"{leader.name} leads, {tick}" if leader.name else f"no beat leads, {tick}"


def due_lines(dues: Iterable[float], previous: float, zone: str) -> Iterator[str]:
    """Yield a line each due time, those after a change of the clocks marked."""
    for due_at in dues:
        change = offset_change(due_at, previous, zone)
        yield local_text(due_at, zone, weekday=True) + (f"  {change}" if change else "")
        previous = due_at


def due_json(dues: Iterable[float], previous: float, zone: str) -> Iterator[str]:
    """Yield the same as JSON."""
    for due_at in dues:
        clocks = offset_change(due_at, previous, zone)
        yield json.dumps({"due_at": due_at, "local": moment(due_at, zone).isoformat(), "clocks": clocks})
        previous = due_at


def ago(instant: float) -> str:
    """Return how long ago an instant was, in its two largest units."""
    seconds = max(time.time() - instant, 0.0)
    parts = duration_text(float(int(seconds))).split()
    return " ".join(parts[:4]) + " ago"


def counted(number: int, thing: str) -> str:
    """Return ``3 schedules``, ``1 schedule``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
