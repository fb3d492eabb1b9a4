"""A schedule: which task type runs when, and the policies for ticks that could not run in time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from types import NoneType
from typing import Any, Literal, Self, get_args

from taskapp.errors import did_you_mean
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.times import Timing, When, jitter_ms, when_from, zone_of

NAME_BYTES_MOST = 200
CATCH_UP_MOST = 1_000

Misfire = Literal["skip", "once", "catch_up"]
Overlap = Literal["allow", "skip", "queue", "cancel"]


@dataclass(frozen=True)
class Elsewhere:
    """Times of a schedule class defined by the application, known only to a beat with that configuration."""

    said: str

    def after(self, instant: float) -> float | None:
        """Return ``instant``; the beat that knows the times corrects it."""
        return instant

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, which holds only the text shown to users."""
        return {"kind": "elsewhere", "said": self.said}

    def __str__(self) -> str:
        return self.said


@dataclass(frozen=True)
class Schedule:
    """When and how a task type runs on a schedule."""

    name: str
    task: str
    when: When
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    """Queue to send to; ``None`` for the queue of the task type."""
    priority: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Other JSON options for ``apply_async``, such as ``expires``, ``time_limit`` or ``headers``."""
    zone: str = "UTC"
    """Time zone of excluded dates and of due times shown to users."""
    start_at: float | None = None
    """Nothing is due before this time (Unix seconds)."""
    end_at: float | None = None
    """Nothing is due at or after this time (Unix seconds)."""
    excluded: tuple[tuple[date, date], ...] = ()
    """First and last days, in ``zone``, of periods without due times."""
    calendar: str | None = None
    """Name of a calendar whose days are excluded, too."""
    max_runs: int = 0
    """Maximum number of ticks; 0 for no limit."""
    jitter_seconds: float = 0.0
    """Maximum delay of each tick, derived from name and due time; a tick is always sent before the next is due."""
    misfire: Misfire = "once"
    """How to treat due times that no beat sent in time: drop those more than ``grace_seconds`` late (``skip``), send
    the last one (``once``), or send up to ``catch_up_most`` of them (``catch_up``)."""
    grace_seconds: float = 60.0
    """Maximum lateness of a tick under the policy ``skip``."""
    catch_up_most: int = 100
    overlap: Overlap = "allow"
    """While the last run is unfinished, ``allow`` another run, ``skip`` the tick, ``queue`` one, or ``cancel`` the
    unfinished run."""
    unfinished_seconds: float = 86_400.0
    """A run that has not reported its end after this time counts as finished."""
    pause_after_failures: int = 0
    """Number of consecutive failures after which to pause; 0 for never."""
    source: Literal["user", "config"] = "user"
    """``config`` for an entry of ``beat_schedule``, which can only be changed there."""

    def __post_init__(self) -> None:
        """Check everything that does not need a server.

        Raises:
            BadSchedule: A value is invalid; names it and a remedy.
        """
        # Checked first: a name that is not printable may not be encodable.
        if not self.name or not self.name.isprintable() or len(self.name.encode()) > NAME_BYTES_MOST:
            self._refuse("name", "it is not a valid name", f"give 1 to {NAME_BYTES_MOST} printable bytes")
        if not self.task or not self.task.isprintable():
            self._refuse("task", "it is not a valid name", "name a task type")
        for name, known in (("misfire", Misfire), ("overlap", Overlap)):
            if getattr(self, name) not in get_args(known):
                self._refuse(name, "there is no such policy", f"choose one of {', '.join(get_args(known))}")
        if self.priority is not None and not 0 <= self.priority <= 9:
            self._refuse("priority", "it is out of range", "give 0 (lowest) to 9 (highest)")
        self._check_bounds()
        self._check_call()

    def _check_bounds(self) -> None:
        for name in ("max_runs", "jitter_seconds", "grace_seconds", "unfinished_seconds", "pause_after_failures"):
            if not 0 <= getattr(self, name) < math.inf:
                self._refuse(name, "it is negative or not a number", "give 0 or more")
        if not 1 <= self.catch_up_most <= CATCH_UP_MOST:
            self._refuse("catch_up_most", "it is out of range", f"give 1 to {CATCH_UP_MOST}")
        self.timing()  # refuses an unknown zone, and an end before the start

    def _check_call(self) -> None:
        if times := {"countdown", "eta", "task_id"}.intersection(self.options):
            why = "the schedule determines times and task ids"
            raise BadSchedule("options", sorted(times), why, "leave them out")
        try:
            json.dumps([self.args, self.kwargs, self.options])
        except (TypeError, ValueError) as error:
            why = f"arguments and options must be JSON: {error}"
            raise BadSchedule("args", self.args, why, "give what JSON can hold") from error

    def _refuse(self, name: str, why: str, remedy: str) -> None:
        raise BadSchedule(name, getattr(self, name), why, remedy)

    @property
    def local_zone(self) -> str:
        """Zone of its due times: their own if they have one, otherwise ``zone``."""
        return zone_of(self.when, self.zone)

    def to_send_ms(self, timing: Timing, due_ms: int) -> int:
        """Return when to send the tick due at ``due_ms``: later by its jitter, but before the next is due."""
        width_ms = round(self.jitter_seconds * 1_000)
        if not width_ms:
            return due_ms
        following = timing.after(due_ms / 1_000)
        if following is not None:
            width_ms = min(width_ms, round(following * 1_000) - due_ms)
        return due_ms + jitter_ms(self.name, due_ms, width_ms)

    def timing(self, calendar: Iterable[tuple[date, date]] = ()) -> Timing:
        """Return its due times, excluding the given days of its calendar."""
        return Timing(self.when, self.start_at, self.end_at, (*self.excluded, *calendar), self.zone)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with ``changes``.

        Raises:
            BadSchedule: A field is unknown, or its value is invalid.
        """
        known = {each.name for each in fields(self)} - {"name", "source"}
        for name in changes:
            if name not in known:
                raise _unknown_field(name, known)
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, without fields that have their default value; ``schedule_from`` reads it."""
        form: dict[str, Any] = {"name": self.name, "task": self.task, "when": self.when.as_dict()}
        for each in fields(self):
            value = getattr(self, each.name)
            default = each.default_factory() if callable(each.default_factory) else each.default
            if each.name not in form and value != default:
                form[each.name] = value
        if self.excluded:
            form["excluded"] = [f"{first}/{last}" if first != last else str(first) for first, last in self.excluded]
        return form


def schedule_from(form: Mapping[str, Any]) -> Schedule:
    """Return the schedule described by ``form``, see ``Schedule.as_dict``.

    Raises:
        BadSchedule: A field is missing, unknown or invalid.
    """
    known = [each.name for each in fields(Schedule)]
    for name in form:
        if name not in known:
            raise _unknown_field(name, known)
    for name in ("name", "task", "when"):
        if name not in form:
            raise BadSchedule(name, None, "each schedule needs a name, a task and a when", f"give its {name}")
    _check_types(form)
    values = dict(form)
    when = form["when"]
    is_elsewhere = isinstance(when, Mapping) and when.get("kind") == "elsewhere"
    values["when"] = Elsewhere(str(when.get("said"))) if is_elsewhere else when_from(when)
    values["args"] = tuple(form.get("args", ()))
    values["excluded"] = days_from(form.get("excluded", ()))
    return Schedule(**values)


_TYPES: tuple[tuple[tuple[str, ...], tuple[type, ...], str], ...] = (
    (("name", "task", "zone", "misfire", "overlap", "source"), (str,), "text"),
    (("queue", "calendar"), (str, NoneType), "text"),
    (("args", "excluded"), (list, tuple), "a list"),
    (("kwargs", "options"), (dict,), "an object with names"),
    (("max_runs", "catch_up_most", "pause_after_failures"), (int,), "a whole number"),
    (("priority",), (int, NoneType), "a whole number"),
    (("jitter_seconds", "grace_seconds", "unfinished_seconds"), (int, float), "a number of seconds"),
    (("start_at", "end_at"), (int, float, NoneType), "a number of Unix seconds"),
)
"""Fields, their types in JSON, and how errors call these."""


def _check_types(form: Mapping[str, Any]) -> None:
    for names, types, called in _TYPES:
        for name in names:
            value = form.get(name)
            if name in form and (not isinstance(value, types) or isinstance(value, bool)):
                raise BadSchedule(name, value, f"it is not {called}", "see docs/schedules.md")


def _unknown_field(name: str, known: Iterable[str]) -> BadSchedule:
    close = did_you_mean(name, known).removeprefix("; ")
    return BadSchedule("fields", name, "no field has that name", close or "see docs/schedules.md")


def days_from(texts: Iterable[str]) -> tuple[tuple[date, date], ...]:
    """Parse days such as ``2026-12-24``, or first and last day as in ``2026-12-24/2027-01-06``.

    Raises:
        BadSchedule: An element of ``texts`` is not a valid day or period.
    """
    return tuple(_days(text) for text in texts)


def _days(text: str) -> tuple[date, date]:
    try:
        first, _, last = text.partition("/")
        days = date.fromisoformat(first), date.fromisoformat(last or first)
    except (ValueError, AttributeError) as error:
        raise BadSchedule("excluded", text, "it is not a date", "write 2026-12-24, or 2026-12-24/2027-01-06") from error
    if days[1] < days[0]:
        raise BadSchedule("excluded", text, "its last day is before its first", "swap them")
    return days
