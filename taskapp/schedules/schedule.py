"""A schedule: which task type runs when, and what happens when it could not."""

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
    """Times that only a beat whose configuration has them knows: a schedule class of the application's own."""

    said: str

    def after(self, instant: float) -> float | None:
        """Return ``instant``: whoever knows better corrects it."""
        return instant

    def as_dict(self) -> dict[str, Any]:
        """Return what people see of it."""
        return {"kind": "elsewhere", "said": self.said}

    def __str__(self) -> str:
        return self.said


@dataclass(frozen=True)
class Schedule:
    """When and how a task type runs by itself."""

    name: str
    task: str
    when: When
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    """``None``: where tasks of this type go."""
    priority: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else ``apply_async`` takes, as far as it is JSON: ``expires``, ``time_limit``, ``headers`` …"""
    zone: str = "UTC"
    """In which excluded dates and fire times are meant and shown."""
    start_at: float | None = None
    """Unix seconds; the first due time may be this one."""
    end_at: float | None = None
    """Unix seconds; nothing is due from then on."""
    excluded: tuple[tuple[date, date], ...] = ()
    """First and last day, in ``zone``, of times without a due time."""
    calendar: str | None = None
    """A calendar, kept beside the schedules, whose days are excluded, too."""
    max_runs: int = 0
    """After so many ticks there are no more; 0: no bound."""
    jitter_seconds: float = 0.0
    """Each tick is sent up to so much later, at a time that follows from name and due time; before the next is due."""
    misfire: Misfire = "once"
    """What becomes of due times nobody was there for: they are dropped when ``grace_seconds`` have passed
    (``skip``), the last of them is sent (``once``), or up to ``catch_up_most`` are (``catch_up``)."""
    grace_seconds: float = 60.0
    """With ``skip``: how late a tick may be."""
    catch_up_most: int = 100
    overlap: Overlap = "allow"
    """While the last run is unfinished: send all the same, ``skip`` the tick, ``queue`` one, ``cancel`` the run."""
    unfinished_seconds: float = 86_400.0
    """After so long a run that was not heard of counts as finished."""
    pause_after_failures: int = 0
    """Pause after so many failures in a row; 0: never."""
    source: Literal["user", "config"] = "user"
    """``config``: an entry of ``beat_schedule``; it is changed there."""

    def __post_init__(self) -> None:
        """Check what can be checked without a server.

        Raises:
            BadSchedule: A value cannot be; says which, and what could.
        """
        # What cannot be printed need not have bytes either.
        if not self.name or not self.name.isprintable() or len(self.name.encode()) > NAME_BYTES_MOST:
            self._refuse("name", "it cannot name one", f"give 1 to {NAME_BYTES_MOST} printable bytes")
        if not self.task or not self.task.isprintable():
            self._refuse("task", "it names nothing to run", "name a task type")
        for name, known in (("misfire", Misfire), ("overlap", Overlap)):
            if getattr(self, name) not in get_args(known):
                self._refuse(name, "there is no such policy", f"choose one of {', '.join(get_args(known))}")
        if self.priority is not None and not 0 <= self.priority <= 9:
            self._refuse("priority", "there is none of that number", "0 is the lowest, 9 the highest")
        self._check_bounds()
        self._check_call()

    def _check_bounds(self) -> None:
        for name in ("max_runs", "jitter_seconds", "grace_seconds", "unfinished_seconds", "pause_after_failures"):
            if not 0 <= getattr(self, name) < math.inf:
                self._refuse(name, "it is negative, or no number", "give 0 or more")
        if not 1 <= self.catch_up_most <= CATCH_UP_MOST:
            self._refuse("catch_up_most", "it is out of range", f"give 1 to {CATCH_UP_MOST}")
        self.timing()  # refuses a zone that is none, an end before the start

    def _check_call(self) -> None:
        if times := {"countdown", "eta", "task_id"}.intersection(self.options):
            why = "its times say when a schedule runs, and its ids follow from them"
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
        """Whose clocks it goes by: those of its times, if they have a zone of their own."""
        return zone_of(self.when, self.zone)

    def to_send_ms(self, timing: Timing, due_ms: int) -> int:
        """Return when the tick due at ``due_ms`` is sent: later by its jitter, but before the next is due."""
        width_ms = round(self.jitter_seconds * 1_000)
        if not width_ms:
            return due_ms
        following = timing.after(due_ms / 1_000)
        if following is not None:
            width_ms = min(width_ms, round(following * 1_000) - due_ms)
        return due_ms + jitter_ms(self.name, due_ms, width_ms)

    def timing(self, calendar: Iterable[tuple[date, date]] = ()) -> Timing:
        """Return its due times, without the days of its ``calendar``."""
        return Timing(self.when, self.start_at, self.end_at, (*self.excluded, *calendar), self.zone)

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Return it with ``changes``.

        Raises:
            BadSchedule: No schedule has such a field, or it cannot have that value.
        """
        known = {each.name for each in fields(self)} - {"name", "source"}
        for name in changes:
            if name not in known:
                raise _unknown_field(name, known)
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, without what is as usual; ``schedule_from`` reads it."""
        said: dict[str, Any] = {"name": self.name, "task": self.task, "when": self.when.as_dict()}
        for each in fields(self):
            value = getattr(self, each.name)
            usual = each.default_factory() if callable(each.default_factory) else each.default
            if each.name not in said and value != usual:
                said[each.name] = value
        if self.excluded:
            said["excluded"] = [f"{first}/{last}" if first != last else str(first) for first, last in self.excluded]
        return said


def schedule_from(said: Mapping[str, Any]) -> Schedule:
    """Return the schedule that ``said`` describes, see ``Schedule.as_dict``.

    Raises:
        BadSchedule: Something is missing, unknown or cannot be.
    """
    known = [each.name for each in fields(Schedule)]
    for name in said:
        if name not in known:
            raise _unknown_field(name, known)
    for name in ("name", "task", "when"):
        if name not in said:
            raise BadSchedule(name, None, "each schedule has a name, a task and a when", f"give its {name}")
    _check_types(said)
    values = dict(said)
    when = said["when"]
    is_elsewhere = isinstance(when, Mapping) and when.get("kind") == "elsewhere"
    values["when"] = Elsewhere(str(when.get("said"))) if is_elsewhere else when_from(when)
    values["args"] = tuple(said.get("args", ()))
    values["excluded"] = days_from(said.get("excluded", ()))
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
"""Fields, of what type JSON has them, and what that is called."""


def _check_types(said: Mapping[str, Any]) -> None:
    for names, types, called in _TYPES:
        for name in names:
            value = said.get(name)
            if name in said and (not isinstance(value, types) or isinstance(value, bool)):
                raise BadSchedule(name, value, f"it is not {called}", "see docs/schedules.md")


def _unknown_field(name: str, known: Iterable[str]) -> BadSchedule:
    close = did_you_mean(name, known).removeprefix("; ")
    return BadSchedule("fields", name, "there is none of that name", close or "see docs/schedules.md")


def days_from(texts: Iterable[str]) -> tuple[tuple[date, date], ...]:
    """Return the days that ``texts`` name: ``2026-12-24``, or first and last as ``2026-12-24/2027-01-06``.

    Raises:
        BadSchedule: One of them is no day.
    """
    return tuple(_days(text) for text in texts)


def _days(text: str) -> tuple[date, date]:
    try:
        first, _, last = text.partition("/")
        days = date.fromisoformat(first), date.fromisoformat(last or first)
    except (ValueError, AttributeError) as error:
        raise BadSchedule("excluded", text, "it is no date", "write 2026-12-24, or 2026-12-24/2027-01-06") from error
    if days[1] < days[0]:
        raise BadSchedule("excluded", text, "its last day is before its first", "swap them")
    return days
