"""Schedules as people and programs change them, while beats run.

What is changed here takes effect at once: the leader is woken. Schedules live in Redis alone; a
beat keeps nothing of its own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from taskapp.engine.producer import Message, publications
from taskapp.errors.schedules import BadSchedule, ConfiguredSchedule, ScheduleChanged, ScheduleExists
from taskapp.redis.link import Link
from taskapp.schedules.reader import Register
from taskapp.schedules.record import ScheduleRecord, known_from
from taskapp.schedules.schedule import Elsewhere, Schedule
from taskapp.schedules.times import tick_id

RUNS_KEPT = 20
BACKFILLED_MOST = 10_000
BACKFILLED_AT_ONCE = 100

Due = tuple[int | str, int]
NEVER: Due = ("", 0)
AS_IT_IS: Due = ("=", 0)
"""A due time that may move on at any moment is not written back."""
Make = Callable[[Schedule, int, str], Sequence[Message]]
"""Returns the message of the tick of a schedule that is due at (ms) and has this id."""


class Schedules(Register):
    """The schedules of one deployment, to be changed, too.

    Args:
        link: The connection to their server.
        prefix: The prefix of its keys.
        make: Makes the messages of ticks, for ``run_now`` and ``backfill``.
    """

    def __init__(self, link: Link, prefix: str, make: Make) -> None:
        super().__init__(link, prefix)
        self._make = make

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
        if self.link.command("SISMEMBER", self.keys("schedules_config"), name):
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
        self._refuse_if_configured(name)
        schedule = known.schedule.changed(changes)
        due = AS_IT_IS if _keeps_times(known, schedule) else self._first_due(schedule)
        if self._write(schedule, "edit", due, known.revision):
            raise ScheduleChanged(name)
        return schedule

    def put_configured(self, schedule: Schedule) -> bool:
        """Keep a schedule of the configuration; say whether there is none of that name from elsewhere."""
        fields = self.link.command("HGETALL", self.keys("schedule", schedule.name))
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

    def remove(self, name: str, *, is_configured: bool = False) -> None:
        """Remove one; what was queued stays queued.

        Raises:
            UnknownSchedule: There is none of that name.
            ConfiguredSchedule: It comes from the configuration.
        """
        if not is_configured:
            self._refuse_if_configured(name)
        if not self.link.run("schedules/unschedule", self.prefix, 0, name) and not is_configured:
            raise self.unknown(name)

    def pause(self, name: str, why: str = "paused by hand") -> None:
        """Let nothing of it be due until it is resumed.

        Raises:
            UnknownSchedule: There is none of that name.
        """
        if not self.link.run("schedules/pause", self.prefix, 0, name, "paused", why, ""):
            raise self.unknown(name)

    def resume(self, name: str) -> float | None:
        """Let it go on from now; return the next due time. What was due meanwhile is dropped.

        Raises:
            UnknownSchedule: There is none of that name.
            ScheduleChanged: Somebody else changed it at the same time.
        """
        known = self.get(name)
        due_ms, at_ms = self._due(known.schedule)
        if not self.link.run("schedules/resume", self.prefix, 0, name, known.revision, due_ms, at_ms):
            raise ScheduleChanged(name)
        return due_ms / 1_000 if isinstance(due_ms, int) else None

    def run_now(self, name: str) -> str:
        """Queue one run beside its ticks, whatever its overlap policy; return the id of the task.

        Raises:
            UnknownSchedule: There is none of that name.
            ScheduleChanged: Somebody else changed it at the same time.
        """
        known = self.get(name)
        return self._send(known, [(int(self.now() * 1_000), str(uuid.uuid4()))], "allow")[0]

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
        timing = self.timing_of(known.schedule)
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
        answer = self.link.run(
            "schedules/schedule", self.prefix, 0, schedule.name, mode, revision, json.dumps(schedule.as_dict()), *due,
            schedule.source if schedule.source == "config" else "", schedule.pause_after_failures, paused,
        )  # fmt: skip
        return "" if answer[0] else str(answer[1].decode())

    def _first_due(self, schedule: Schedule) -> Due:
        due = self._due(schedule)
        if due == NEVER:
            raise BadSchedule("when", str(schedule.when), "it is never due again", "give a time that is still to come")
        return due

    def _due(self, schedule: Schedule) -> Due:
        """Return when it is due next and when that tick is to be sent, ms."""
        timing = self.timing_of(schedule)
        due_at = timing.after(self.now())
        if due_at is None:
            return NEVER
        due_ms = round(due_at * 1_000)
        return due_ms, schedule.to_send_ms(timing, due_ms)

    def _send(self, known: ScheduleRecord, ticks: Sequence[tuple[int, str]], overlap: str) -> list[str]:
        schedule = known.schedule
        made = [(due_ms, identity, self._make(schedule, due_ms, identity)) for due_ms, identity in ticks]
        news = publications([message for *_, messages in made for message in messages])
        args: list[Any] = [len(news), *(part for each in news for part in each)]
        args += (schedule.name, known.revision, "", "", 0, 0, overlap, 0, 0, len(made))
        for due_ms, identity, [message] in made:
            args += (due_ms, identity, message.queue, message.priority, message.blob)
        if self.link.run("schedules/tick", self.prefix, 0, "", 0, RUNS_KEPT, *args)[1] != b"done":
            raise ScheduleChanged(schedule.name)
        return [identity for _, identity in ticks]


def _keeps_times(known: ScheduleRecord, schedule: Schedule) -> bool:
    # One that has ended may go on now: it has more runs.
    return known.due_at is not None and _times(schedule) == _times(known.schedule)


def _times(schedule: Schedule) -> Mapping[str, Any]:
    said = schedule.as_dict()
    names = ("when", "zone", "start_at", "end_at", "excluded", "calendar", "jitter_seconds")
    return {name: said.get(name) for name in names}
