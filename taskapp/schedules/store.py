"""Write access to schedules while beats run.

Changes take effect at once, because they wake the leader. Schedules are stored only in Redis; beats keep no copy.
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
"""Leaves the due time unchanged: writing it back could undo a step the leader makes at the same time."""
Make = Callable[[Schedule, int, str], Sequence[Message]]
"""``make(schedule, due_ms, task_id)`` returns the message of a tick, in a sequence of length one."""


class Schedules(Register):
    """Read and write access to the schedules of a deployment.

    Args:
        link: Connection to the server of the schedules.
        prefix: Prefix of the keys.
        make: Creates the messages of ticks, for ``run_now`` and ``backfill``.
    """

    def __init__(self, link: Link, prefix: str, make: Make) -> None:
        super().__init__(link, prefix)
        self._make = make

    def add(self, schedule: Schedule, *, replace: bool = False, paused: str = "") -> None:
        """Add a schedule; its first due time is the next one from now.

        Args:
            schedule: The schedule to add.
            replace: Replace a schedule of that name, keeping its ticks, counts and pause.
            paused: Reason to add it paused; empty to add it active.

        Raises:
            ScheduleExists: A schedule has that name, and ``replace`` is not set.
            ConfiguredSchedule: The schedule to replace comes from the configuration.
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
        """Change fields of a schedule and return it; its due time changes only if its times do.

        Raises:
            UnknownSchedule: No schedule has that name.
            ConfiguredSchedule: It comes from the configuration.
            BadSchedule: A field is unknown, its value is invalid, or the schedule would never be due again.
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
        """Store a schedule of the configuration; return ``False`` if one from elsewhere already has that name."""
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
        """Remove a schedule; its queued ticks stay queued.

        Raises:
            UnknownSchedule: No schedule has that name.
            ConfiguredSchedule: It comes from the configuration.
        """
        if not is_configured:
            self._refuse_if_configured(name)
        if not self.link.run("schedules/unschedule", self.prefix, 0, name) and not is_configured:
            raise self.unknown(name)

    def pause(self, name: str, why: str = "paused by hand") -> None:
        """Pause a schedule until it is resumed.

        Raises:
            UnknownSchedule: No schedule has that name.
        """
        if not self.link.run("schedules/pause", self.prefix, 0, name, "paused", why, ""):
            raise self.unknown(name)

    def resume(self, name: str) -> float | None:
        """Resume a schedule and return its next due time, if any; drop due times that passed while it was paused.

        Raises:
            UnknownSchedule: No schedule has that name.
            ScheduleChanged: Somebody else changed it at the same time.
        """
        known = self.get(name)
        due_ms, at_ms = self._due(known.schedule)
        if not self.link.run("schedules/resume", self.prefix, 0, name, known.revision, due_ms, at_ms):
            raise ScheduleChanged(name)
        return due_ms / 1_000 if isinstance(due_ms, int) else None

    def run_now(self, name: str) -> str:
        """Queue one run in addition to its ticks, ignoring its overlap policy; return the task id.

        Raises:
            UnknownSchedule: No schedule has that name.
            ScheduleChanged: Somebody else changed it at the same time.
        """
        known = self.get(name)
        return self._send(known, [(int(self.now() * 1_000), str(uuid.uuid4()))], "allow")[0]

    def backfill(self, name: str, first: float, last: float, *, dry_run: bool = False) -> list[tuple[float, str]]:
        """Queue the ticks due from ``first`` to before ``last`` (Unix seconds); return due times and task ids.

        A tick has the same task id each time it is sent. With ``dry_run``, queue nothing.

        Raises:
            UnknownSchedule: No schedule has that name.
            BadSchedule: There are more than ``BACKFILLED_MOST`` ticks, or only a beat knows the schedule's times.
            ScheduleChanged: Somebody else changed it at the same time.
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
        """Set the days of a calendar and update the schedules that follow it; return how many these are."""
        self.calendars.put(name, list(days))
        followers = [known for known in self.all() if known.schedule.calendar == name]
        for known in followers:
            # If somebody edits the schedule at the same time, that edit computes its due time.
            self._write(known.schedule, "edit", self._due(known.schedule), known.revision)
        return len(followers)

    def remove_calendar(self, name: str) -> None:
        """Remove a calendar that no schedule follows.

        Raises:
            BadSchedule: No calendar has that name, or a schedule follows it.
        """
        self.calendars.days(name)
        if followers := [known.schedule.name for known in self.all() if known.schedule.calendar == name]:
            why = f"schedules follow it: {', '.join(map(repr, followers[:3]))}{' …' if len(followers) > 3 else ''}"
            raise BadSchedule("calendar", name, why, "give them another with: taskapp schedules edit")
        self.calendars.drop(name)

    # -------------------------------------------------------------------------------------------------

    def _write(self, schedule: Schedule, mode: str, due: Due, revision: str = "", paused: str = "") -> str:
        """Write a schedule; return an empty string, or why it was not written."""
        answer = self.link.run(
            "schedules/schedule", self.prefix, 0, schedule.name, mode, revision, json.dumps(schedule.as_dict()), *due,
            schedule.source if schedule.source == "config" else "", schedule.pause_after_failures, paused,
        )  # fmt: skip
        return "" if answer[0] else str(answer[1].decode())

    def _first_due(self, schedule: Schedule) -> Due:
        due = self._due(schedule)
        if due == NEVER:
            raise BadSchedule("when", str(schedule.when), "it will never be due", "give a time in the future")
        return due

    def _due(self, schedule: Schedule) -> Due:
        """Return the next due time and the send time of that tick (ms), or ``NEVER``."""
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
    # A schedule that has ended gets a new due time, as it may have more runs now.
    return known.due_at is not None and _times(schedule) == _times(known.schedule)


def _times(schedule: Schedule) -> Mapping[str, Any]:
    form = schedule.as_dict()
    names = ("when", "zone", "start_at", "end_at", "excluded", "calendar", "jitter_seconds")
    return {name: form.get(name) for name in names}
