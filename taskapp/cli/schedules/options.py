"""The options of ``taskapp schedules add`` and ``edit``, and the schedule fields they set."""

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
"""Value of an empty option: the field's default."""


class Name(ParamType):
    """The name of a schedule; must be printable."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        if not value or not value.isprintable():
            self.fail(f"{value!r} is not a valid name; use printable characters", param, ctx)
        return value


class Duration(ParamType):
    """A duration, converted to seconds."""

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
        self.kind, self.name = kind, "JSON list" if kind is list else "JSON object"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value; a list as a tuple."""
        try:
            read = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"not JSON: {error}", param, ctx)
        if not isinstance(read, self.kind):
            self.fail(f"{value[:80]!r} is not a {self.name}", param, ctx)
        return tuple(read) if isinstance(read, list) else read


class OrUsual(ParamType):
    """A value of another type, or an empty text for the field's default."""

    def __init__(self, kind: ParamType) -> None:
        self.kind, self.name = kind, kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the other type's value, or ``USUAL``."""
        return USUAL if value == "" else self.kind.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Return the metavar of the other type."""
        return self.kind.get_metavar(param, ctx)


_OPTIONS: tuple[tuple[str, str, ParamType, str], ...] = (
    ("--args", "args", Json(list), "JSON list of arguments."),
    ("--kwargs", "kwargs", Json(dict), "JSON object of keyword arguments."),
    ("--queue", "queue", click.STRING, "Queue; by default that of the task type."),
    ("--priority", "priority", click.IntRange(0, 9), "Priority; 9 runs first."),
    ("--options", "options", Json(dict), "JSON object of other apply_async options, such as expires."),
    ("--start", "start_at", click.STRING, "Not due before this time: 2026-12-01T09:00."),
    ("--end", "end_at", click.STRING, "Not due from this time on."),
    ("--calendar", "calendar", click.STRING, "Not due on this calendar's days; see: taskapp schedules calendar."),
    ("--max-runs", "max_runs", click.IntRange(min=0), "End after this many runs; 0: no limit."),
    ("--jitter", "jitter_seconds", Duration(), "Delay each run by a random time up to this: 30s."),
    ("--misfire", "misfire", click.Choice(get_args(Misfire)), "What to do with ticks missed while no beat ran."),
    ("--grace", "grace_seconds", Duration(), "With --misfire skip: how late a run may start."),
    ("--catch-up", "catch_up_most", click.IntRange(min=1), "With --misfire catch_up: maximum of missed runs to send."),
    ("--overlap", "overlap", click.Choice(get_args(Overlap)), "What to do while the last run is unfinished."),
    ("--unfinished", "unfinished_seconds", Duration(), "How long until a run without news counts as finished."),
    ("--pause-after-failures", "pause_after_failures", click.IntRange(min=0),
     "Pause after this many consecutive failures; 0: never."),
)  # fmt: skip
"""Options that set one field each: name, field, type, help."""

_TWICE = "Whether a local time that occurs twice, as clocks go back, is due both times."
_EXCLUDE = "Not due on these days: 2026-12-24, or 2026-12-24/2027-01-06. Repeatable."


def terms(command: Command) -> Command:
    """Add the options to ``command``; it receives their values as ``given``."""
    for decorate in (
        click.option("--twice/--no-twice", default=None, help=_TWICE),
        click.option("--exclude", "excluded", multiple=True, metavar="DAYS", help=_EXCLUDE),
        *(click.option(name, field, type=OrUsual(kind), help=text) for name, field, kind, text in reversed(_OPTIONS)),
        click.option("--zone", metavar="ZONE", help="Time zone, such as Europe/Berlin; UTC by default."),
    ):  # fmt: skip
        command = decorate(command)
    return command


def schedule_of(name: str, task: str, when: str, given: Mapping[str, Any]) -> Schedule:
    """Return the schedule from the options of ``add``.

    Raises:
        click.BadParameter: A value is malformed.
        BadSchedule: The values do not go together.
    """
    zone = given["zone"] or "UTC"
    return Schedule(name, task, _when(when, zone, twice=given["twice"]), zone=zone, **_fields(given, zone))


def changes_of(known: Schedule, when: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the options of ``edit`` change.

    Raises:
        click.BadParameter: A value is malformed.
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
    """Return ``when`` in the time zone ``zone``."""
    with as_parameter("--zone"):
        if isinstance(when, Cron):
            return replace(when, zone=zone, twice=when.twice if twice is None else twice)
    if twice:
        raise click.BadParameter("only a cron schedule can use it", param_hint="--twice")
    return when


@contextmanager
def as_parameter(hint: str) -> Iterator[None]:
    """Map ``BadSchedule`` to an error in the parameter ``hint``.

    Raises:
        click.BadParameter: In place of ``BadSchedule``.
    """
    try:
        yield
    except BadSchedule as error:
        raise click.BadParameter(str(error), param_hint=hint) from error
