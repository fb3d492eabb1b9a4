"""Schedules as people and programs see and change them, while beats run.

What is changed here takes effect at once: the leader is woken. Schedules live in Redis alone; a
beat keeps nothing of its own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from taskapp.broker.delivery import Message, publications
from taskapp.errors import BadSchedule, ConfiguredSchedule, ScheduleChanged, ScheduleExists, UnknownSchedule
from taskapp.redis import Keys, Link
from taskapp.schedules.calendars import Calendars
from taskapp.schedules.known import Known, Leader, Tick, known_from, tick_from
from taskapp.schedules.overview import Overview, overview
from taskapp.schedules.schedule import Elsewhere, Schedule
from taskapp.schedules.times import Timing, tick_id

PAGE = 500
RUNS_KEPT = 20
BACKFILLED_MOST = 10_000
BACKFILLED_AT_ONCE = 100

Due = tuple[int | str, int]
NEVER: Due = ("", 0)
AS_IT_IS: Due = ("=", 0)
"""A due time that may move on at any moment is not written back."""
Make = Callable[[Schedule, int, str], Sequence[Message]]
"""Returns the message of the tick of a schedule that is due at (ms) and has this id."""


class Schedules:
    """The schedules of one deployment.

    Args:
        link: The connection to their server.
        prefix: The prefix of its keys.
        make: Makes the messages of ticks, for ``run_now`` and ``backfill``.
    """

    def __init__(self, link: Link, prefix: str, make: Make) -> None:
        self._link, self._prefix, self._make = link, prefix, make
        self._keys = Keys(prefix)
        self.calendars = Calendars(link, prefix)

    # --- look --------------------------------------------------------------------------------------

    def count(self) -> int:
        """Return how many there are."""
        return int(self._link.command("ZCARD", self._keys("schedules")))

    def overview(self) -> Overview:
        """Return how many there are of each state, and how late the leader is; errors as with ``Link.command``."""
        return overview(self._link, self._prefix)

    def all(self, prefix: str = "") -> Iterator[Known]:
        """Return all whose names begin with ``prefix``, by name. One that cannot be read is broken."""
        low, high = f"[{prefix}".encode(), (f"[{prefix}".encode() + b"\xff") if prefix else b"+"
        low = low if prefix else b"-"
        while names := self._link.command("ZRANGEBYLEX", self._keys("schedules"), low, high, "LIMIT", 0, PAGE):
            texts = [name.decode() for name in names]
            about = self._link.pipeline([("HGETALL", self._keys("schedule", name)) for name in texts])
            last = self._link.pipeline([("LINDEX", self._keys("schedule_runs", name), 0) for name in texts])
            for name, fields, tick in zip(texts, about, last, strict=True):
                if isinstance(fields, Exception):  # something else has its key
                    yield known_from(name, [])._replace(broken=str(fields))
                elif fields:
                    is_tick = isinstance(tick, bytes)
                    yield known_from(name, fields)._replace(last=tick_from(tick) if is_tick else None)
            low = b"(" + names[-1]

    def get(self, name: str) -> Known:
        """Return one.

        Raises:
            UnknownSchedule: There is none of that name.
        """
        fields = self._link.command("HGETALL", self._keys("schedule", name))
        if not fields:
            raise UnknownSchedule(name, (each.decode() for each in self._some_names()))
        return known_from(name, fields)

    def _some_names(self) -> Any:
        return self._link.command("ZRANGE", self._keys("schedules"), 0, 9_999)

    def existing(self, names: Sequence[str]) -> set[str]:
        """Return those of ``names`` that are schedules."""
        found: set[str] = set()
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            scores = _all_answered(self._link.pipeline([("ZSCORE", self._keys("schedules"), name) for name in page]))
            found.update(name for name, score in zip(page, scores, strict=True) if score is not None)
        return found

    def ticks(self, name: str) -> list[Tick]:
        """Return its last ticks, the latest first; at most ``RUNS_KEPT``."""
        texts = self._link.command("LRANGE", self._keys("schedule_runs", name), 0, -1)
        return [tick_from(text) for text in texts]

    def upcoming(self, name: str, count: int = 10, after: float | None = None) -> list[float]:
        """Return the next ``count`` due times, Unix seconds; those later than ``after`` if it is given.

        Of one that is paused, those it would have if it were resumed now.
        """
        known = self.get(name)
        schedule = known.schedule
        first = [known.due_at] if after is None and known.due_at is not None and known.state == "active" else []
        if isinstance(schedule.when, Elsewhere):
            return first
        if schedule.max_runs:
            count = min(count, max(schedule.max_runs - known.runs, 0))
        timing = self._timing(schedule)
        instant = first[0] if first else (after if after is not None else self._now())
        return [*first, *islice(_following(timing.after, instant), max(count - len(first), 0))][:count]

    def leader(self) -> Leader:
        """Return which beat leads."""
        (name, token, tick_at, until), (seconds, micros), offset = _all_answered(self._link.pipeline([
            ("HMGET", self._keys("beat"), "leader", "token", "tick_at", "until"),
            ("TIME",),
            ("HGET", self._keys("clock"), "offset"),
        ]))  # fmt: skip
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000 + float(offset or 0)
        leads = name if float(until or 0) > now_ms else b""
        return Leader(leads.decode(), int(token or 0), float(tick_at) / 1_000 if tick_at else None)

    # --- change --------------------------------------------------------------------------------------

    def add(self, schedule: Schedule, *, replace: bool = False, paused: str = "") -> None:
        """Keep a schedule; its first due time is the next one from now.

        Args:
            schedule: What to keep.
            replace: Whether one of that name goes; its ticks and counts stay, and it stays paused if it is.
            paused: Why it begins paused; empty: it does not.

        Raises:
            ScheduleExists: There is one of that name, and ``replace`` is not set.
            ConfiguredSchedule: The one of that name comes from the configuration.
            BadSchedule: It would never be due.
        """
        if replace:
            self._refuse_if_configured(schedule.name)
        if self._write(schedule, "replace" if replace else "add", self._first_due(schedule), paused=paused):
            raise ScheduleExists(schedule.name)

    def _refuse_if_configured(self, name: str) -> None:
        if self._link.command("SISMEMBER", self._keys("schedules_config"), name):
            raise ConfiguredSchedule(name)

    def edit(self, name: str, **changes: Any) -> Schedule:
        """Change what ``changes`` names, and return what it is now; its due time stays if its times do.

        Raises:
            UnknownSchedule: There is none of that name.
            ConfiguredSchedule: It comes from the configuration.
            BadSchedule: No schedule has such a field, or it cannot have that value, or it would never be due again.
            ScheduleChanged: Somebody else changed it at the same time.
        """
        known = self.get(name)
        _refuse_configured(known)
        schedule = known.schedule.changed(changes)
        due = AS_IT_IS if _keeps_times(known, schedule) else self._first_due(schedule)
        if self._write(schedule, "edit", due, known.revision):
            raise ScheduleChanged(name)
        return schedule

    def put_configured(self, schedule: Schedule) -> bool:
        """Keep a schedule of the configuration; say whether there is none of that name from elsewhere."""
        fields = self._link.command("HGETALL", self._keys("schedule", schedule.name))
        if fields:
            known = known_from(schedule.name, fields)
            if known.schedule.source != "config":
                return False
            if known.schedule == schedule and not known.broken:
                return True
            due = AS_IT_IS if _keeps_times(known, schedule) else self._due(schedule)
            self._write(schedule, "edit", due, known.revision)
        else:
            self._write(schedule, "add", self._due(schedule))
        return True

    def configured(self) -> set[str]:
        """Return the names of those that come from the configuration."""
        return {name.decode() for name in self._link.command("SMEMBERS", self._keys("schedules_config"))}

    def remove(self, name: str, *, is_configured: bool = False) -> None:
        """Remove one; what was queued stays queued.

        Raises:
            UnknownSchedule: There is none of that name.
            ConfiguredSchedule: It comes from the configuration.
        """
        if not is_configured:
            self._refuse_if_configured(name)
        if not self._link.run("unschedule", self._prefix, 0, name) and not is_configured:
            raise UnknownSchedule(name, (each.decode() for each in self._some_names()))

    def pause(self, name: str, why: str = "paused by hand") -> None:
        """Let nothing of it be due until it is resumed.

        Raises:
            UnknownSchedule: There is none of that name.
        """
        if not self._link.run("pause", self._prefix, 0, name, "paused", why, ""):
            raise UnknownSchedule(name, (each.decode() for each in self._some_names()))

    def set_aside(self, name: str, revision: str, error: str) -> None:
        """Take one that cannot be sent out of the way."""
        self._link.run("pause", self._prefix, 0, name, "broken", error[:1_000], revision)

    def resume(self, name: str) -> float | None:
        """Let it go on from now; return the next due time. What was due meanwhile is dropped.

        Raises:
            UnknownSchedule: There is none of that name.
            ScheduleChanged: Somebody else changed it at the same time.
        """
        known = self.get(name)
        due_ms, at_ms = self._due(known.schedule)
        if not self._link.run("resume", self._prefix, 0, name, known.revision, due_ms, at_ms):
            raise ScheduleChanged(name)
        return due_ms / 1_000 if isinstance(due_ms, int) else None

    def run_now(self, name: str) -> str:
        """Queue one run beside its ticks, whatever its overlap policy; return the id of the task.

        Raises:
            UnknownSchedule: There is none of that name.
            ScheduleChanged: Somebody else changed it at the same time.
        """
        known = self.get(name)
        return self._send(known, [(int(self._now() * 1_000), str(uuid.uuid4()))], "allow")[0]

    def backfill(self, name: str, first: float, last: float, *, dry_run: bool = False) -> list[tuple[float, str]]:
        """Queue the ticks due from ``first`` until before ``last`` (Unix seconds); return due times and task ids.

        A tick has the same id however often it is sent.

        Raises:
            UnknownSchedule: There is none of that name.
            BadSchedule: There are more than ``BACKFILLED_MOST``.
        """
        known = self.get(name)
        if isinstance(known.schedule.when, Elsewhere):
            why = "only a beat with the same configuration knows its times"
            raise BadSchedule(
                "when", str(known.schedule.when), why, "queue single runs with: taskapp schedules run-now"
            )
        timing = self._timing(known.schedule)
        dues = list(timing.between(first, last, BACKFILLED_MOST + 1))
        if len(dues) > BACKFILLED_MOST:
            raise BadSchedule(
                "range", [first, last], f"it has more than {BACKFILLED_MOST:,} ticks", "backfill less at a time"
            )
        ticks = [(round(due * 1_000), tick_id(name, round(due * 1_000))) for due in dues]
        if not dry_run:
            for start in range(0, len(ticks), BACKFILLED_AT_ONCE):
                self._send(known, ticks[start : start + BACKFILLED_AT_ONCE], "allow")
        return [(due_ms / 1_000, identity) for due_ms, identity in ticks]

    # --- calendars -----------------------------------------------------------------------------------

    def set_calendar(self, name: str, days: Iterable[str]) -> int:
        """Give a calendar these days; return how many schedules follow it, and have their next due time anew."""
        self.calendars.put(name, list(days))
        followers = [known for known in self.all() if known.schedule.calendar == name]
        for known in followers:
            # One that somebody edits at this moment gets its due time by that.
            self._write(known.schedule, "edit", self._due(known.schedule), known.revision)
        return len(followers)

    def remove_calendar(self, name: str) -> None:
        """Remove a calendar that no schedule follows.

        Raises:
            BadSchedule: There is none of that name, or a schedule follows it.
        """
        self.calendars.days(name)
        if followers := [known.schedule.name for known in self.all() if known.schedule.calendar == name]:
            why = f"schedules follow it: {', '.join(map(repr, followers[:3]))}{' …' if len(followers) > 3 else ''}"
            raise BadSchedule("calendar", name, why, "give them another with: taskapp schedules edit")
        self.calendars.drop(name)

    # -------------------------------------------------------------------------------------------------

    def _write(self, schedule: Schedule, mode: str, due: Due, revision: str = "", paused: str = "") -> str:
        """Write a schedule; return why not, if so."""
        answer = self._link.run(
            "schedule", self._prefix, 0, schedule.name, mode, revision, json.dumps(schedule.as_dict()), *due,
            schedule.source if schedule.source == "config" else "", schedule.pause_after_failures, paused,
        )  # fmt: skip
        return "" if answer[0] else str(answer[1].decode())

    def _timing(self, schedule: Schedule) -> Timing:
        return schedule.timing(self.calendars.days(schedule.calendar))

    def _first_due(self, schedule: Schedule) -> Due:
        due = self._due(schedule)
        if due == NEVER:
            raise BadSchedule("when", str(schedule.when), "it is never due again", "give a time that is still to come")
        return due

    def _due(self, schedule: Schedule) -> Due:
        """Return when it is due next and when that tick is to be sent, ms."""
        timing = self._timing(schedule)
        due_at = timing.after(self._now())
        if due_at is None:
            return NEVER
        due_ms = round(due_at * 1_000)
        return due_ms, schedule.to_send_ms(timing, due_ms)

    def _now(self) -> float:
        """Return the time by the clock that the leader goes by."""
        seconds, micros = self._link.command("TIME")
        return int(seconds) + int(micros) / 1_000_000

    def _send(self, known: Known, ticks: Sequence[tuple[int, str]], overlap: str) -> list[str]:
        schedule = known.schedule
        made = [(due_ms, identity, self._make(schedule, due_ms, identity)) for due_ms, identity in ticks]
        news = publications([message for *_, messages in made for message in messages])
        args: list[Any] = [len(news), *(part for each in news for part in each)]
        args += (schedule.name, known.revision, "", "", 0, 0, overlap, 0, 0, len(made))
        for due_ms, identity, [message] in made:
            args += (due_ms, identity, message.queue, message.priority, message.blob)
        if self._link.run("tick", self._prefix, 0, "", 0, RUNS_KEPT, *args)[1] != b"done":
            raise ScheduleChanged(schedule.name)
        return [identity for _, identity in ticks]


def _keeps_times(known: Known, schedule: Schedule) -> bool:
    # One that has ended may go on now: it has more runs.
    return known.due_at is not None and _times(schedule) == _times(known.schedule)


def _times(schedule: Schedule) -> Mapping[str, Any]:
    said = schedule.as_dict()
    names = ("when", "zone", "start_at", "end_at", "excluded", "calendar", "jitter_seconds")
    return {name: said.get(name) for name in names}


def _following(after: Callable[[float], float | None], instant: float) -> Iterator[float]:
    while (due_at := after(instant)) is not None:
        yield due_at
        instant = due_at


def _refuse_configured(known: Known) -> None:
    if known.schedule.source == "config":
        raise ConfiguredSchedule(known.schedule.name)


def _all_answered(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
