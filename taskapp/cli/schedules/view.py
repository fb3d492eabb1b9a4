"""Formats schedules for people and programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from taskapp.app.masks import seen_fields
from taskapp.cli.target import chosen_app
from taskapp.schedules.formatting import NOTHING, local_text, moment, when_text
from taskapp.schedules.record import LeaderInfo, ScheduleRecord, Tick
from taskapp.schedules.times import duration_text, offset_change

HEADINGS = ("NAME", "TASK", "WHEN", "ZONE", "NEXT DUE", "STATE", "LAST RUN", "MISSED", "SKIPPED")
TICK_HEADINGS = ("DUE", "SENT", "LATE BY", "STATE", "TOOK", "TASK ID")


def row(known: ScheduleRecord) -> tuple[str, ...]:
    """Return the cells of one schedule in the list."""
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
    """Return one schedule as JSON-serializable values."""
    return {
        **seen(known), "state": known.state,
        "due_at": known.due_at if known.state == "active" else None,
        "paused": known.paused, "broken": known.broken, "runs": known.runs, "missed": known.missed,
        "skipped": known.skipped, "failures": known.failures, "unfinished": known.unfinished,
        "last": known.last._asdict() if known.last is not None else None,
    }  # fmt: skip


def seen(known: ScheduleRecord) -> dict[str, Any]:
    """Return the fields of a schedule, with masked arguments hidden."""
    return seen_fields(chosen_app(), known.schedule.task, known.schedule.as_dict())


def leader_text(leader: LeaderInfo) -> str:
    """Return a text that names the active beat and its last tick."""
    tick = f"last tick {ago(leader.tick_at)}" if leader.tick_at is not None else "no ticks yet"
    return f"active beat: {leader.name}, {tick}" if leader.name else f"no active beat, {tick}"


def due_lines(dues: Iterable[float], previous: float, zone: str) -> Iterator[str]:
    """Yield a line per due time; marks those after a clock change."""
    for due_at in dues:
        change = offset_change(due_at, previous, zone)
        yield local_text(due_at, zone, weekday=True) + (f"  {change}" if change else "")
        previous = due_at


def due_json(dues: Iterable[float], previous: float, zone: str) -> Iterator[str]:
    """Yield a JSON object per due time."""
    for due_at in dues:
        clocks = offset_change(due_at, previous, zone)
        yield json.dumps({"due_at": due_at, "local": moment(due_at, zone).isoformat(), "clocks": clocks})
        previous = due_at


def ago(instant: float) -> str:
    """Return how long ago ``instant`` was, in its two largest units."""
    seconds = max(time.time() - instant, 0.0)
    parts = duration_text(float(int(seconds))).split()
    return " ".join(parts[:4]) + " ago"


def counted(number: int, thing: str) -> str:
    """Return ``3 schedules``, ``1 schedule``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
