"""``taskapp schedules``: show and change schedules while beats run."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from taskapp.cli.engine import schedules as lent
from taskapp.cli.output import say, say_json, say_table
from taskapp.cli.schedules import calendars, files, runs, view
from taskapp.cli.schedules.check import check
from taskapp.cli.schedules.options import Name, as_parameter, changes_of, schedule_of, terms
from taskapp.cli.target import app_name, chosen_app
from taskapp.schedules.formatting import local_text, when_text
from taskapp.schedules.record import ScheduleRecord
from taskapp.schedules.store import Schedules
from taskapp.schedules.times import parse_instant

FORESEEN = 3
SHOWN_NEXT = 5
STATES = ("active", "paused", "broken", "ended")

name_argument = click.argument("name", type=Name())
names_argument = click.argument("names", nargs=-1, required=True, type=Name())


@click.group()
def schedules() -> None:
    """Show and change timed jobs while beats run; changes take effect at once.

    Put a name that begins with a dash after two dashes: taskapp schedules show -- --odd
    """


for command in (
    runs.run_now, runs.backfill, files.export, files.import_,
    calendars.calendar,
):  # fmt: skip
    schedules.add_command(command)


# --- look ------------------------------------------------------------------------------------------


@schedules.command("list")
@click.argument("prefix", default="")
@click.option("--state", type=click.Choice(STATES), help="Only schedules in this state.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def list_(prefix: str, state: str | None, *, as_json: bool) -> None:
    """List the schedules whose names begin with PREFIX, by name."""
    with lent() as store:
        found = (known for known in store.all(prefix) if state in (None, known.state))
        if as_json:
            for known in found:
                say_json(view.as_json(known))
            return
        say(f"{view.counted(store.overview().total, 'schedule')}; {view.leader_text(store.leader())}")
        say_table(view.HEADINGS, map(view.row, found), kept=("NAME",), expendable=("SKIPPED", "MISSED", "ZONE"))


@schedules.command()
@name_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, *, as_json: bool) -> None:
    """Show one schedule: its definition, state, last ticks and next ticks."""
    with lent() as store:
        known, ticks = store.get(name), store.ticks(name)
        dues = [] if known.broken else store.upcoming(name, SHOWN_NEXT)
    if as_json:
        last = [tick._asdict() for tick in ticks]
        say_json({**view.as_json(known), "ticks": last, "next": dues})
        return
    for field, value in _shown(known).items():
        say(value, head=f"{field:<22}")
    zone = known.schedule.local_zone
    if ticks:
        say()
        say("last ticks")
        say_table(view.TICK_HEADINGS, (view.tick_row(tick, zone) for tick in ticks), kept=("TASK ID",))
    _print_next(known, dues, time.time())


def _shown(known: ScheduleRecord) -> dict[str, Any]:
    schedule, zone = known.schedule, known.schedule.local_zone
    policies = {"misfire": schedule.misfire, "overlap": schedule.overlap}
    others = {key: value for key, value in view.seen(known).items() if key not in ("when", "source", "zone")}
    for bound in ("start_at", "end_at"):
        if bound in others:
            others[bound] = local_text(others[bound], zone)
    definition = {**others, **policies, "when": when_text(schedule), "zone": zone}
    if schedule.source == "config":
        definition["from"] = "beat_schedule in the configuration"
    status = {
        "state": known.state, "paused": known.paused, "broken": known.broken,
        "next due": local_text(known.due_at, zone) if known.state == "active" else "",
        "unfinished": known.unfinished, "failures in a row": known.failures or "",
    }  # fmt: skip
    counts = {"runs": known.runs, "missed": known.missed, "skipped": known.skipped}
    shown = {**definition, **{key: value for key, value in status.items() if value != ""}, **counts}
    return {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in shown.items()}


def _print_next(known: ScheduleRecord, dues: list[float], previous: float) -> None:
    if not dues:
        return
    say()
    say("next ticks, if resumed" if known.state == "paused" else "next ticks")
    for line in view.due_lines(dues, previous, known.schedule.local_zone):
        say(line)


@schedules.command("next")
@name_argument
@click.option("-n", "--count", default=10, show_default=True, type=click.IntRange(1, 10_000), help="How many to show.")
@click.option("--after", metavar="TIME", help="Only later than this time in its zone, such as 2027-03-27T00:00.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def next_(name: str, count: int, after: str | None, *, as_json: bool) -> None:
    """Show when a schedule is due next, in its own time zone; marks clock changes."""
    with lent() as store:
        known = store.get(name)
        zone, after_at = known.schedule.local_zone, None
        if after is not None:
            with as_parameter("--after"):
                after_at = parse_instant(after, zone)
        dues = store.upcoming(name, count, after_at)
    previous = after_at if after_at is not None else min([time.time(), *dues])
    for line in (view.due_json if as_json else view.due_lines)(dues, previous, zone):
        say(line)
    if known.paused or known.broken:
        say(f"{name!r} is {known.state}: {known.paused or known.broken}", err=True)
    elif not dues:
        say(f"{name!r} is never due again", err=True)


# --- change ----------------------------------------------------------------------------------------


@schedules.command()
@name_argument
@click.argument("task")
@click.argument("when")
@terms
@click.option("--disabled", is_flag=True, help="Add it paused.")
@click.option("--replace", is_flag=True, help="Replace one of that name; its ticks and counts stay.")
def add(name: str, task: str, when: str, *, disabled: bool, replace: bool, **given: Any) -> None:
    """Add a schedule: TASK runs WHEN.

    WHEN is a cron ("0 3 * * MON-FRI", "@daily"), "every 90s", "every 1h from 2026-01-01T00:30", "at
    2026-12-01T09:00", or "sunrise at 52.5,13.4".
    """
    schedule = schedule_of(name, task, when, given)
    with lent() as store:
        check(chosen_app(), schedule)
        store.add(schedule, replace=replace, paused="added paused" if disabled else "")
        say(f"added {name!r}: {when_text(schedule)} in {schedule.local_zone}")
        _foresee(store, name)


@schedules.command()
@name_argument
@click.option("--when", help="When it runs, as with add.")
@click.option("--task", help="The task type that runs.")
@terms
def edit(name: str, when: str | None, task: str | None, **given: Any) -> None:
    """Change only the given fields; an empty value resets a field to its default."""
    with lent() as store:
        known = store.get(name).schedule
        changes = changes_of(known, when, given)
        if task is not None:
            changes["task"] = task
        if not changes:
            raise click.UsageError("give at least one field to change; see: taskapp schedules edit --help")
        check(chosen_app(), known.changed(changes))
        store.edit(name, **changes)
        say(f"changed {name!r}: {', '.join(changes)}")
        _foresee(store, name)


def _foresee(store: Schedules, name: str) -> None:
    known = store.get(name)
    for line in view.due_lines(store.upcoming(name, FORESEEN), time.time(), known.schedule.local_zone):
        say(f"next   {line}")
    if known.paused:
        say(f"{name!r} is paused ({known.paused}); resume it with: taskapp schedules resume")
    elif not store.leader().name:
        say(f"no active beat; start one with: celery -A {app_name()} beat", err=True)


@schedules.command()
@names_argument
@click.option("--why", default="paused by hand", show_default=True, help="Reason shown to others.")
def pause(names: tuple[str, ...], why: str) -> None:
    """Pause schedules until they are resumed; queued runs stay queued."""
    with lent() as store:
        for name in names:
            store.pause(name, why or "paused by hand")
            say(f"paused {name!r}")


@schedules.command()
@names_argument
def resume(names: tuple[str, ...]) -> None:
    """Resume schedules from now on; ticks due during the pause are dropped."""
    with lent() as store:
        for name in names:
            known = store.get(name)
            if known.state == "active":
                say(f"{name!r} is already active")
                continue
            due_at = store.resume(name)
            due = f"due {local_text(due_at, known.schedule.local_zone)}" if due_at else "it is never due again"
            say(f"resumed {name!r}: {due}")


@schedules.command()
@names_argument
def remove(names: tuple[str, ...]) -> None:
    """Remove schedules; queued runs stay queued."""
    with lent() as store:
        for name in names:
            store.remove(name)
            say(f"removed {name!r}")
