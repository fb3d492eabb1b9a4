"""The tab for schedules: when each runs and how its runs ended; pauses, resumes and runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from taskapp.app.application import Celery
from taskapp.app.masks import seen_fields
from taskapp.errors import TaskappError
from taskapp.errors.schedules import UnknownSchedule
from taskapp.monitor.flower.page.tab import Action, ActionRequest, Done, NotFound, PageQuery, Tab, each_of
from taskapp.monitor.flower.page.view import (
    Button,
    Card,
    Cards,
    Column,
    FactLine,
    FactsBlock,
    Field,
    Filters,
    Note,
    TableBlock,
    Tone,
    View,
)
from taskapp.sanitize import sanitize
from taskapp.schedules.formatting import local_text, when_text
from taskapp.schedules.pages import STATES, page
from taskapp.schedules.record import ScheduleRecord, Tick
from taskapp.schedules.store import Schedules
from taskapp.schedules.times import offset_change

ROWS = 50
SHOWN_NEXT = 10
LATE_SECONDS = 5.0
"""Lateness beyond this is shown in red."""

PAUSE = Button("pause", "Pause")
RESUME = Button("resume", "Resume")
RUN_NOW = Button("run-now", "Run now", asks="Queue one extra run of {} now?", confirm="Run {} now")
BUTTONS = (PAUSE, RESUME, RUN_NOW)


class SchedulesTab(Tab):
    """Schedules."""

    name: ClassVar[str] = "schedules"
    title: ClassVar[str] = "Schedules"
    about: ClassVar[str] = "Timed jobs: when they last ran and when they run next."
    order: ClassVar[int] = 30
    row_noun: ClassVar[str] = "schedules"
    without_engine: ClassVar[str] = (
        "Schedules are kept in the broker only if it is Redis. With this broker, beats follow beat_schedule of the "
        "configuration, and cannot be inspected or changed remotely."
    )

    def view(self, app: Celery, query: PageQuery) -> View:
        """Return a page of schedules, or one schedule."""
        with app.schedules() as store:
            return _one(app, store, query["show"]) if query["show"] else _list(app, store, query)

    @property
    def actions(self) -> Mapping[str, Action]:
        """Pause, resume and run now, by name."""
        return {"pause": _pause, "resume": _resume, "run-now": _run_now}


def _list(app: Celery, store: Schedules, query: PageQuery) -> View:
    overview, leader = store.overview(), store.leader()
    found = page(store, query["name"], query["state"] if query["state"] in STATES else "", query["after"], ROWS)
    tones: dict[str, Tone] = {"active": "active", "broken": "danger" if overview.states["broken"] else ""}
    cards = [Card(state, overview.states[state], tone=tones.get(state, "")) for state in STATES]
    late = overview.late_seconds
    advice = f"Start one with: celery -A {app.argument} beat"
    no_beat = Note(f"No active beat, so nothing is queued when it is due. {advice}", "danger")
    return View([
        *([] if leader.name or not overview.total else [no_beat]),
        Cards([
            *cards,
            Card("last tick", overview.tick_at, "time"),
            Card("late by", late, "seconds", "danger" if late > LATE_SECONDS else "success"),
        ]),
        Filters([Field("name", "Name begins with", query["name"]), Field("state", "State", query["state"], STATES)]),
        TableBlock(
            f"{overview.total:,} schedules" + (f", active beat: {leader.name}" if leader.name else ""),
            COLUMNS, [_row(known) for known in found.schedules], _empty(overview.total, found.cursor),
            key="name", has_details=True, buttons=BUTTONS, cursor=found.cursor,
        ),
    ], store.now())  # fmt: skip


COLUMNS = (
    Column("name", "Name", "code"), Column("state", "State", "state"), Column("when", "When"),
    Column("due_at", "Next", "time"), Column("sent_at", "Last", "time"), Column("ended", "Ended", "state"),
    Column("task", "Task type", "code"), Column("runs", "Runs", "count"), Column("missed", "Missed", "count"),
    Column("skipped", "Skipped", "count"),
)  # fmt: skip


def _row(known: ScheduleRecord) -> dict[str, Any]:
    schedule, zone, last = known.schedule, known.schedule.local_zone, known.last
    due_at = known.due_at if known.state == "active" else None
    return {
        "name": schedule.name, "state": known.state, "when": _when(known), "due_at": due_at,
        "sent_at": last.sent_at if last else None, "ended": last.state if last else None, "task": schedule.task,
        "runs": known.runs, "missed": known.missed, "skipped": known.skipped, "may": _may(known),
        "hints": {"state": known.broken or known.paused, "due_at": local_text(due_at, zone) if due_at else ""},
    }  # fmt: skip


def _when(known: ScheduleRecord) -> str:
    zone = known.schedule.local_zone
    return when_text(known.schedule) + (f", {zone}" if zone != "UTC" else "")


def _may(known: ScheduleRecord) -> list[str]:
    toggle = "pause" if known.state == "active" else "resume"
    return [] if known.schedule.task == "unreadable" else [toggle, "run-now"]


def _empty(total: int, cursor: str) -> str:
    if cursor:
        return "No matches so far; the search continues on the next page."
    if total:
        return "No matching schedules."
    return "No schedules. Add one with: taskapp schedules add NAME TASK WHEN"


# --- one -------------------------------------------------------------------------------------------


def _one(app: Celery, store: Schedules, name: str) -> View:
    try:
        known = store.get(name)
    except UnknownSchedule as error:
        raise NotFound(str(error)) from error
    zone = known.schedule.local_zone
    dues = [] if known.broken else store.upcoming(name, SHOWN_NEXT)
    may, now = _may(known), store.now()
    return View([
        *([Note(f"Set aside: {known.broken}", "danger")] if known.broken else []),
        FactsBlock(name, _facts(app, known), name, [button for button in BUTTONS if button.action in may]),
        TableBlock(
            "Next ticks, if resumed" if known.state == "paused" else "Next ticks",
            (Column("due_at", "Due", "time"), Column("local", f"In {zone}"), Column("clocks", "Clock change")),
            _next_rows(dues, zone, now), "Never due again.",
        ),
        TableBlock("Last ticks", TICK_COLUMNS, [_tick_row(tick, zone) for tick in store.ticks(name)], "No ticks yet."),
    ], now)  # fmt: skip


def _facts(app: Celery, known: ScheduleRecord) -> list[FactLine]:
    schedule = known.schedule
    seen = seen_fields(app, schedule.task, schedule.as_dict())
    rest = {key: value for key, value in seen.items() if key not in ("name", "when", "source", "zone")}
    zone = schedule.local_zone
    for bound in ("start_at", "end_at"):
        if bound in rest:
            rest[bound] = local_text(rest[bound], zone)
    others = {"misfire": schedule.misfire, "overlap": schedule.overlap, **rest}
    return [
        FactLine("State", known.state, "state"),
        *([FactLine("Paused", known.paused)] if known.paused else []),
        FactLine("When", when_text(schedule)), FactLine("Zone", zone),
        *(FactLine(key, sanitize(value if isinstance(value, str) else json.dumps(value, default=str)), "code")
          for key, value in others.items()),
        *([FactLine("Source", "beat_schedule in the configuration")] if schedule.source == "config" else []),
        *([FactLine("Unfinished run", known.unfinished, "code")] if known.unfinished else []),
        FactLine("Runs", known.runs, "count"), FactLine("Missed", known.missed, "count"),
        FactLine("Skipped", known.skipped, "count"), FactLine("Consecutive failures", known.failures, "count"),
    ]  # fmt: skip


def _next_rows(dues: list[float], zone: str, previous: float) -> list[dict[str, Any]]:
    rows = []
    for due_at in dues:
        clocks = offset_change(due_at, min(previous, due_at), zone)
        rows.append({"due_at": due_at, "local": local_text(due_at, zone, weekday=True), "clocks": clocks or None})
        previous = due_at
    return rows


TICK_COLUMNS = (
    Column("due_at", "Due", "time"), Column("late_seconds", "Late by", "seconds"), Column("state", "State", "state"),
    Column("took_seconds", "Took", "seconds"), Column("id", "Task id", "code"),
)  # fmt: skip


def _tick_row(tick: Tick, zone: str) -> dict[str, Any]:
    late_seconds = max(tick.sent_at - tick.due_at, 0.0)
    hints = {"due_at": local_text(tick.due_at, zone)}
    return {**tick._asdict(), "late_seconds": late_seconds, "hints": hints}


# --- actions ---------------------------------------------------------------------------------------


def _pause(app: Celery, order: ActionRequest) -> Done:
    why = f"paused in Flower by {order.who}" if order.who else "paused in Flower"
    with app.schedules() as store:
        return each_of(order, partial(store.pause, why=why), "paused", (TaskappError,))


def _resume(app: Celery, order: ActionRequest) -> Done:
    with app.schedules() as store:
        return each_of(order, store.resume, "resumed", (TaskappError,))


def _run_now(app: Celery, order: ActionRequest) -> Done:
    with app.schedules() as store:
        return each_of(order, store.run_now, "queued one run of", (TaskappError,))
