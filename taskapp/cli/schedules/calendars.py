"""``taskapp schedules calendar``: named lists of days on which schedules are not due."""

from __future__ import annotations

import click

from taskapp.cli.engine import schedules as lent
from taskapp.cli.output import say, say_json, say_table
from taskapp.cli.schedules import view
from taskapp.cli.schedules.options import Name, as_parameter
from taskapp.schedules.schedule import days_from
from taskapp.schedules.store import Schedules


@click.command()
@click.argument("name", required=False, type=Name())
@click.argument("days", nargs=-1, metavar="[DAY]...")
@click.option("--remove", is_flag=True, help="Remove the calendar; refused while a schedule uses it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
def calendar(name: str | None, days: tuple[str, ...], *, remove: bool, as_json: bool) -> None:
    """List calendars, show one, or set its days: 2026-12-24, or 2026-12-24/2027-01-06.

    Schedules that use it (see add --calendar) are not due on its days.
    """
    if remove and (name is None or days):
        raise click.UsageError("with --remove, name one calendar and no days")
    with as_parameter("DAY"):
        days_from(days)
    with lent() as store:
        if name is None or not (days or remove):
            _print(store, name, as_json=as_json)
        elif remove:
            store.remove_calendar(name)
            say(f"removed calendar {name!r}")
        else:
            followers = store.set_calendar(name, days)
            use = f"{view.counted(followers, 'schedule')} use{'s' if followers == 1 else ''} it"
            say(f"calendar {name!r}: {' '.join(days)}; {use}")


def _print(store: Schedules, name: str | None, *, as_json: bool) -> None:
    if name is not None:
        store.calendars.days(name)
    calendars = {each: days for each, days in sorted(store.calendars.all().items()) if name in (None, each)}
    if as_json:
        for each, days in calendars.items():
            say_json({"name": each, "days": days})
    elif calendars:
        rows = [(each, " ".join(days)) for each, days in calendars.items()]
        say_table(("CALENDAR", "DAYS"), rows, kept=("CALENDAR",))
    else:
        say("no calendars")
