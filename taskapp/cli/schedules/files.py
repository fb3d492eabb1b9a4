"""``taskapp schedules export`` and ``import``: schedules as lines of JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

import click
from redis.exceptions import RedisError

from taskapp.cli.engine import schedules as lent
from taskapp.cli.included import import_included
from taskapp.cli.output import say, say_json
from taskapp.cli.schedules.check import try_out, warn_about_unknown
from taskapp.cli.schedules.view import counted
from taskapp.cli.target import chosen_app
from taskapp.errors import TaskappError
from taskapp.errors.schedules import BadSchedule, ScheduleExists
from taskapp.schedules.schedule import Elsewhere, Schedule, schedule_from
from taskapp.schedules.store import Schedules

TOLD_MOST = 20

Problem = tuple[int, str]
"""A line number, and what is wrong with the line."""


class FileLine(NamedTuple):
    """One parsed line: a schedule, and why it is paused; empty if it is not."""

    number: int
    schedule: Schedule
    paused: str


@click.command()
@click.argument("prefix", default="")
@click.option("--all", "everything", is_flag=True, help="Include those from beat_schedule in the configuration.")
def export(prefix: str, *, everything: bool) -> None:
    """Print the schedules whose names begin with PREFIX as JSON lines, unmasked, for import."""
    unreadable = 0
    with lent() as store:
        for known in store.all(prefix):
            schedule = known.schedule
            if schedule.source == "config":
                if not everything:
                    continue
            elif isinstance(schedule.when, Elsewhere):
                unreadable += 1
                say(f"skipped {schedule.name!r}: {known.broken}", err=True)
                continue
            paused = {"paused": known.paused} if known.paused else {}
            say_json({**schedule.as_dict(), **paused})
    if unreadable:
        raise click.ClickException(f"skipped {counted(unreadable, 'unreadable schedule')}")


@click.command("import")
@click.argument("file", type=click.File(encoding="utf-8"), required=False)
@click.option("--from-django-celery-beat", "from_beat", is_flag=True, help="Read its tables instead of a file.")
@click.option("--replace", is_flag=True, help="Replace schedules of the same names.")
def import_(file: TextIO | None, *, from_beat: bool, replace: bool) -> None:
    """Add the schedules of FILE (- for standard input), as printed by export, or those of django-celery-beat.

    Checks all before adding the first: if one is invalid, none is added. Skips those of the configuration and
    those that are never due again.
    """
    if (file is None) != from_beat:
        raise click.UsageError("name a file, or - for standard input, or add --from-django-celery-beat")
    with lent() as store:
        lines, problems = _read(file) if file is not None else _read_tables()
        problems += _problems(lines, store, replace=replace)
        if problems:
            raise _nothing_imported(problems, "periodic task" if from_beat else "line")
        wanted = list(_wanted(lines, store))
        _add(store, wanted, replace=replace)
    paused = sum(bool(line.paused) for line in wanted)
    say(f"added {counted(len(wanted), 'schedule')}, {paused} of them paused; skipped {len(lines) - len(wanted)}")
    warn_about_unknown(chosen_app(), (line.schedule.task for line in wanted))


def _read(file: TextIO) -> tuple[list[FileLine], list[Problem]]:
    lines: list[FileLine] = []
    problems: list[Problem] = []
    number = 0
    try:
        for number, text in enumerate(file, 1):
            if text.strip():
                try:
                    lines.append(_line(number, text))
                except (TaskappError, ValueError, RecursionError) as error:
                    problems.append((number, str(error)))
    except UnicodeDecodeError as error:
        problems.append((number + 1, f"it is not UTF-8 text: {error}"))
    return lines, problems


def _read_tables() -> tuple[list[FileLine], list[Problem]]:
    """Read the tables of ``django-celery-beat``; the numbers are primary keys."""
    _set_up_django()
    from taskapp.django.celery_beat import form_of, periodic_tasks

    lines: list[FileLine] = []
    problems: list[Problem] = []
    for row in periodic_tasks():
        try:
            lines.append(_line_of(row.pk, form_of(row)))
        except (TaskappError, ValueError) as error:
            problems.append((row.pk, f"{row.name!r}: {error}"))
    return lines, problems


def _set_up_django() -> None:
    """Load the apps of the Django project of this command's app."""
    chosen_app()  # its module names the settings
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        raise click.ClickException("no Django project is named; add -A proj, or set DJANGO_SETTINGS_MODULE")
    import django
    from django.apps import apps

    django.setup()
    if not apps.is_installed("django_celery_beat"):
        raise click.ClickException("'django_celery_beat' is not in INSTALLED_APPS, so there are no tables to read")


def _line(number: int, text: str) -> FileLine:
    return _line_of(number, json.loads(text), text)


def _line_of(number: int, read: Any, text: str = "") -> FileLine:
    if not isinstance(read, dict):
        raise BadSchedule("line", text.strip(), "it is not a JSON object", "see what taskapp schedules export prints")
    paused = read.pop("paused", "")
    if not isinstance(paused, str):
        raise BadSchedule("paused", paused, "it is not a string", "give the reason for the pause, or leave it out")
    return FileLine(number, schedule_from(read), paused)


def _problems(lines: list[FileLine], store: Schedules, *, replace: bool) -> list[Problem]:
    """Return the problems of all lines that cannot be used."""
    import_included(chosen_app())
    taken = set() if replace else store.existing([line.schedule.name for line in lines])
    seen, configured = set[str](), store.configured()
    problems = []
    for line in lines:
        schedule = line.schedule
        try:
            if schedule.name in seen:
                raise BadSchedule("name", schedule.name, "the file has it twice", "remove one")
            seen.add(schedule.name)
            if schedule.source == "config":
                continue
            if schedule.name in configured:
                raise BadSchedule(
                    "name", schedule.name, "beat_schedule in the configuration has it", "use another name"
                )
            if schedule.name in taken:
                raise ScheduleExists(schedule.name)
            _check(schedule, store)
        except TaskappError as error:
            problems.append((line.number, str(error)))
    return problems


def _check(schedule: Schedule, store: Schedules) -> None:
    if isinstance(schedule.when, Elsewhere):
        raise BadSchedule("when", str(schedule.when), "only its own beat knows its times", "give it a when")
    schedule.timing(store.calendars.days(schedule.calendar))
    try_out(chosen_app(), schedule)


def _nothing_imported(problems: list[Problem], what: str) -> click.ClickException:
    for number, problem in sorted(problems)[:TOLD_MOST]:
        say(f"{what} {number}: {problem}", err=True)
    return click.ClickException(f"nothing imported; {counted(len(problems), what)} cannot be used")


def _wanted(lines: list[FileLine], store: Schedules) -> Iterator[FileLine]:
    for line in lines:
        schedule = line.schedule
        if schedule.source == "config":
            say(f"skipped {schedule.name!r}: it comes from beat_schedule in the configuration", err=True)
        elif schedule.timing(store.calendars.days(schedule.calendar)).after(time.time()) is None:
            say(f"skipped {schedule.name!r}: it is never due again", err=True)
        else:
            yield line


def _add(store: Schedules, lines: list[FileLine], *, replace: bool) -> None:
    for count, line in enumerate(lines):
        try:
            store.add(line.schedule, replace=replace, paused=line.paused)
        except (TaskappError, RedisError, OSError) as error:
            why = f"added {count} of {counted(len(lines), 'schedule')}, then at line {line.number}: {error}"
            raise click.ClickException(f"{why}; import the file again with --replace") from error
