"""Extra runs of schedules: one now, or a backfill of past ticks."""

from __future__ import annotations

import sys

import click
from redis.exceptions import RedisError

from taskapp.cli.engine import schedules as lent
from taskapp.cli.output import say, say_json
from taskapp.cli.schedules import view
from taskapp.cli.schedules.options import Name, as_parameter
from taskapp.errors import TaskappError
from taskapp.schedules.formatting import local_text
from taskapp.schedules.store import BACKFILLED_AT_ONCE, Schedules
from taskapp.schedules.times import parse_instant

Ticks = list[tuple[float, str]]


@click.command("run-now")
@click.argument("names", nargs=-1, required=True, type=Name())
def run_now(names: tuple[str, ...]) -> None:
    """Queue one extra run of each schedule, whatever its overlap policy."""
    with lent() as store:
        for name in names:
            say(f"queued {name!r} as {store.run_now(name)}")


@click.command()
@click.argument("name", type=Name())
@click.argument("first", metavar="FROM")
@click.argument("last", metavar="TO")
@click.option("--dry-run", is_flag=True, help="List the ticks without queueing them.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def backfill(name: str, first: str, last: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Queue the ticks due from FROM until before TO, times in the schedule's zone.

    A tick has the same task id each time it is queued.
    """
    with lent() as store:
        zone = store.get(name).schedule.local_zone
        with as_parameter("FROM"):
            first_at = parse_instant(first, zone)
        with as_parameter("TO"):
            last_at = parse_instant(last, zone)
        if last_at <= first_at:
            raise click.BadParameter(f"{last!r} is not after {first!r}", param_hint="TO")
        ticks = store.backfill(name, first_at, last_at, dry_run=True)
        if not dry_run and ticks:
            _confirm(name, ticks, zone, yes=yes)
            ticks = _queue(store, name, ticks, last_at, zone)
    for due_at, identity in ticks if dry_run or as_json else ():
        if as_json:
            say_json({"due_at": due_at, "id": identity, "queued": not dry_run})
        else:
            say(f"{local_text(due_at, zone, weekday=True)}  {identity}")
    say(f"{'would queue' if dry_run else 'queued'} {view.counted(len(ticks), 'tick')} of {name!r}", err=as_json)


def _confirm(name: str, ticks: Ticks, zone: str, *, yes: bool) -> None:
    if yes:
        return
    span = f"due {local_text(ticks[0][0], zone)} to {local_text(ticks[-1][0], zone)}"
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"this would queue {view.counted(len(ticks), 'tick')} {span}; list them with --dry-run, queue with --yes"
        )
    click.confirm(f"queue {view.counted(len(ticks), 'tick')} of {name!r}, {span}?", abort=True, err=True)


def _queue(store: Schedules, name: str, ticks: Ticks, last_at: float, zone: str) -> Ticks:
    """Queue the ticks in batches, so that an error can say how far it got."""
    queued: Ticks = []
    for start in range(0, len(ticks), BACKFILLED_AT_ONCE):
        following = ticks[start + BACKFILLED_AT_ONCE : start + BACKFILLED_AT_ONCE + 1]
        try:
            queued += store.backfill(name, ticks[start][0], following[0][0] if following else last_at)
        except (TaskappError, RedisError, OSError) as error:
            at = local_text(ticks[start][0], zone)
            why = f"queued {len(queued)} of {len(ticks)} ticks, then: {error}; continue with FROM {at}"
            raise click.ClickException(why) from error
    return queued
