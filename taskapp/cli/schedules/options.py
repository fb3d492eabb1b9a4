"""What ``taskapp schedules add`` and ``edit`` take beside a name, and the fields of a schedule it means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, get_args

import click

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.schedule import Misfire, Overlap, Schedule, days_from
from taskapp.schedules.times import Cron, When, parse_duration, parse_instant, parse_when

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # no generic before Click 8.3

Command = Callable[..., Any]

USUAL = object()
"""What an empty text stands for: the field is as it is when nothing is said."""


class Name(ParamType):
    """The name of a schedule: what a terminal can print."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        if not value or not value.isprintable():
            self.fail(f"{value!r} cannot name one; give printable characters", param, ctx)
        return value


class Duration(ParamType):
    """A length of time, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the seconds."""
        try:
            return parse_duration(value)
        except BadSchedule as error:
            self.fail(str(error), param, ctx)


class Json(ParamType):
    """A JSON list or object."""

    def __init__(self, kind: type) -> None:
        self.kind, self.name = kind, "json list" if kind is list else "json object"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what was read."""
        try:
            read = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"not JSON: {error}", param, ctx)
        if not isinstance(read, self.kind):
            self.fail(f"{value[:80]!r} is no {self.name}", param, ctx)
        return tuple(read) if isinstance(read, list) else read


class OrUsual(ParamType):
    """What another type takes, or nothing at all for what is usual."""

    def __init__(self, kind: ParamType) -> None:
        self.kind, self.name = kind, kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the other type does."""
        return USUAL if value == "" else self.kind.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return what help shows for a value."""
        return self.kind.get_metavar(param, ctx)


_OPTIONS: tuple[tuple[str, str, ParamType, str], ...] = (
    ("--args", "args", Json(list), "JSON list of arguments."),
    ("--kwargs", "kwargs", Json(dict), "JSON object of named arguments."),
    ("--queue", "queue", click.STRING, "Queue; usually that of the task type."),
    ("--priority", "priority", click.IntRange(0, 9), "9 goes first."),
    ("--options", "options", Json(dict), "JSON object of what else apply_async takes, such as expires."),
    ("--start", "start_at", click.STRING, "Nothing is due before: 2026-12-01T09:00."),
    ("--end", "end_at", click.STRING, "Nothing is due from then on."),
    ("--calendar", "calendar", click.STRING, "Nothing is due on its days; see: taskapp schedules calendar."),
    ("--max-runs", "max_runs", click.IntRange(min=0), "No more after so many; 0: no bound."),
    ("--jitter", "jitter_seconds", Duration(), "Send each up to so much later: 30s."),
    ("--misfire", "misfire", click.Choice(get_args(Misfire)), "What becomes of due times nobody was there for."),
    ("--grace", "grace_seconds", Duration(), "With --misfire skip: how late one may be."),
    ("--catch-up", "catch_up_most", click.IntRange(min=1), "With --misfire catch_up: how many are sent at most."),
    ("--overlap", "overlap", click.Choice(get_args(Overlap)), "While the last run is unfinished."),
    ("--unfinished", "unfinished_seconds", Duration(), "After so long a run nobody heard of counts as finished."),
    ("--pause-after-failures", "pause_after_failures", click.IntRange(min=0), "So many in a row; 0: never."),
)
"""Options that are a field each: name, field, type, help."""

_TWICE = "A local time that clocks show twice is due both times."
_EXCLUDE = "Nothing is due on them: 2026-12-24, or 2026-12-24/2027-01-06. Repeat for more."


def terms(command: Command) -> Command:
    """Give ``command`` the options; their values come as ``given``."""
    for decorate in (
        click.option("--twice/--no-twice", default=None, help=_TWICE),
        click.option("--exclude", "excluded", multiple=True, metavar="DAYS", help=_EXCLUDE),
        *(click.option(name, field, type=OrUsual(kind), help=said) for name, field, kind, said in reversed(_OPTIONS)),
        click.option("--zone", metavar="ZONE", help="Time zone, such as Europe/Berlin; usually UTC."),
    ):  # fmt: skip
        command = decorate(command)
    return command


def schedule_of(name: str, task: str, when: str, given: Mapping[str, Any]) -> Schedule:
    """Return the schedule that ``add`` was given.

    Raises:
        click.BadParameter: A value cannot be read.
        BadSchedule: They cannot be together.
    """
    zone = given["zone"] or "UTC"
    return Schedule(name, task, _when(when, zone, twice=given["twice"]), zone=zone, **_fields(given, zone))


def changes_of(known: Schedule, when: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that ``edit`` was given, others as they are.

    Raises:
        click.BadParameter: A value cannot be read.
    """
    zone = given["zone"] or known.local_zone
    changes = _fields(given, zone)
    if given["zone"]:
        changes["zone"] = zone
    if when is not None:
        twice = given["twice"] if given["twice"] is not None else getattr(known.when, "twice", None)
        changes["when"] = _when(when, zone, twice=twice)
    elif given["zone"] or given["twice"] is not None:
        changes["when"] = _moved(known.when, zone, twice=given["twice"])
    return changes


def _fields(given: Mapping[str, Any], zone: str) -> dict[str, Any]:
    values = {field: given[field] for _, field, *_ in _OPTIONS if given[field] is not None}
    for field, hint in (("start_at", "--start"), ("end_at", "--end")):
        if isinstance(values.get(field), str):
            with as_parameter(hint):
                values[field] = parse_instant(values[field], zone)
    if given["excluded"]:
        with as_parameter("--exclude"):
            values["excluded"] = days_from(days for days in given["excluded"] if days)
    return {field: _usual(field) if value is USUAL else value for field, value in values.items()}


def _usual(field: str) -> Any:
    for each in fields(Schedule):
        if each.name == field:
            return each.default if each.default_factory is MISSING else each.default_factory()
    raise LookupError(field)


def _when(text: str, zone: str, *, twice: bool | None) -> When:
    with as_parameter("WHEN"):
        return _moved(parse_when(text, zone), zone, twice=twice)


def _moved(when: When, zone: str, *, twice: bool | None) -> When:
    """Return ``when`` by the clocks of ``zone``."""
    with as_parameter("--zone"):
        if isinstance(when, Cron):
            return replace(when, zone=zone, twice=when.twice if twice is None else twice)
    if twice:
        raise click.BadParameter("only a cron goes by clocks that show a time twice", param_hint="--twice")
    return when


@contextmanager
def as_parameter(hint: str) -> Iterator[None]:
    """Say of what cannot be read that the command line is wrong.

    Raises:
        click.BadParameter: In place of ``BadSchedule``.
    """
    try:
        yield
    except BadSchedule as error:
        raise click.BadParameter(str(error), param_hint=hint) from error
