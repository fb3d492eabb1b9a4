"""The scheduler of ``celery beat`` with schedules in Redis: any number of beats, one leader. Imported only by beat."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from os import getpid
from time import monotonic
from typing import Any

from celery import beat, schedules, signals
from celery.utils.log import get_logger

from taskapp.beat.probes import watch_beat
from taskapp.celery_internals import crontab_fields, entry_call
from taskapp.client.written_messages import Publisher
from taskapp.engine.producer import Message
from taskapp.errors import TaskappError
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.leader import STANDBY_SECONDS, ScheduleLeader
from taskapp.schedules.messages import made, messages_of
from taskapp.schedules.schedule import Elsewhere, Schedule
from taskapp.schedules.times import Crontab, Interval, Solar, When
from taskapp.transport.transport import is_over_redis

# The stubs are incomplete.
_beat: Any = beat
_Scheduler: Any = beat.Scheduler

CRONTAB_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")

logger = get_logger("celery.beat")


class Scheduler(_Scheduler):
    """Queues due ticks while it leads, see ``taskapp.schedules``; keeps no file."""

    turn_due_at = 0.0
    """Latest time of its next turn (monotonic)."""
    is_connecting = False
    """Whether it is waiting, without a timeout, for its broker; its loop does not turn then."""
    _leader: ScheduleLeader | None = None
    _is_turning = False

    @property
    def leader(self) -> ScheduleLeader:
        """This beat's contender for leadership, created on first access."""
        if self._leader is None:
            publishes = not is_over_redis(self.app.conf.broker_url)
            if not publishes:
                self.is_connecting = True
                self._ensure_connected()
                self.is_connecting = False
            self._held = ExitStack()
            store = self._held.enter_context(self.app.schedules())
            self._store = store
            self._leader = ScheduleLeader(
                store.link.connect, store.prefix, self._make, f"{_beat.beat_nodename(None)}.{getpid()}",
                resolve=self._resolve, on_lead=self._merge_configured, on_cancel=self._cancel,
                publisher=Publisher(self.app) if publishes else None,
            )  # fmt: skip
        return self._leader

    @property
    def is_in_touch(self) -> bool:
        """Whether the server of the schedules answers."""
        return self._leader is not None and self._leader.is_in_touch

    def tick(self, *_: Any, **__: Any) -> float:
        """Queue due ticks and wait for the next; always return 0, the seconds for Celery to sleep."""
        self.turn_due_at = monotonic() + STANDBY_SECONDS
        leader = self.leader
        self._is_turning = True
        try:
            leader.turn(min(STANDBY_SECONDS, self.max_interval))
        finally:
            self._is_turning = False
        self.turn_due_at = monotonic()
        return 0.0

    def should_sync(self) -> bool:
        """Return ``False``: there is no file to write."""
        return False

    def close(self) -> None:
        """Give up leadership and close the connections."""
        # Celery's signal handler may call this during a turn, which may hold a lock; Celery calls it again at the end.
        if self._leader is not None and not self._is_turning:
            self._leader.resign()
            self._held.close()

    # --- configured schedules ------------------------------------------------------------------------

    def _merge_configured(self) -> Iterator[None]:
        """Store the entries of ``beat_schedule`` in Redis, and remove entries that are no longer configured."""
        gone = self._store.configured()
        for name, entry in self.schedule.items():
            try:
                if self._store.put_configured(configured(entry, str(self.app.timezone))):
                    gone.discard(name)
                else:
                    logger.warning(
                        "ignoring entry %r of beat_schedule: a schedule of that name already exists in Redis", name
                    )
            except TaskappError as error:
                logger.error("ignoring entry %r of beat_schedule: %s", name, error)
            yield
        for name in gone:
            self._store.remove(name, is_configured=True)
            yield

    def _resolve(self, schedule: Schedule) -> Schedule:
        if not isinstance(schedule.when, Elsewhere):
            return schedule
        entry = self.schedule.get(schedule.name)
        if entry is None:
            reason = "this beat's configuration has no such entry"
            raise BadSchedule("when", schedule.when.said, reason, "give all beats the same configuration")
        return replace(schedule, when=OwnSchedule(entry.schedule))

    def _make(self, schedule: Schedule, due_ms: int, identity: str) -> Sequence[Message]:
        entry = self.schedule.get(schedule.name) if schedule.source == "config" else None
        if entry is None:
            return messages_of(self.app, schedule, due_ms, identity)
        # From this process's configuration: arguments may not be JSON, or may have to be computed each time.
        call = (*entry_call(entry), entry.options)
        return made(self.app, schedule, due_ms, identity, call)

    def _cancel(self, ids: list[str]) -> None:
        self.app.control.revoke(ids, terminate=True)

    @property
    def info(self) -> str:
        """Text for the startup banner."""
        command = self.app.command
        return f"    . schedules -> in Redis; list them with: {command} schedules list"


@dataclass(frozen=True)
class OwnSchedule:
    """A schedule of a class that the application defines."""

    schedule: Any

    def after(self, instant: float) -> float | None:
        """Return the next due time after ``instant`` (Unix seconds), as if the last run had been then."""
        then = datetime.fromtimestamp(instant, UTC)
        self.schedule.nowfun = lambda: then
        remaining = self.schedule.remaining_estimate(then)
        return instant + max(float(remaining.total_seconds()), 1.0)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields shown to users."""
        return Elsewhere(repr(self.schedule)).as_dict()


def configured(entry: Any, zone: str) -> Schedule:
    """Convert an entry of ``beat_schedule`` to a schedule, leaving out arguments and options that are not JSON.

    Raises:
        BadSchedule: The entry is not a valid schedule.
    """
    options = {
        key: value for key, value in entry.options.items() if key not in ("queue", "priority") and _is_json(value)
    }
    return Schedule(
        entry.name, entry.task, when_of(entry.schedule, zone),
        args=tuple(entry.args or ()) if _is_json(entry.args) else (),
        kwargs=dict(entry.kwargs or {}) if _is_json(entry.kwargs) else {},
        queue=str(entry.options["queue"]) if entry.options.get("queue") else None,
        priority=entry.options.get("priority"), options=options, zone=zone, source="config",
    )  # fmt: skip


def when_of(schedule: Any, zone: str) -> When:
    """Convert one of Celery's schedule objects; other classes are wrapped in ``OwnSchedule``."""
    kind = type(schedule)
    if kind is schedules.crontab:
        return Crontab(**{name: _text(field) for name, field in crontab_fields(schedule).items()}, zone=zone)
    if kind is schedules.solar:
        return Solar(schedule.event, schedule.lat, schedule.lon)
    if kind is schedules.schedule:
        return Interval(round(schedule.run_every.total_seconds(), 3))
    return OwnSchedule(schedule)


def _text(field: Any) -> str:
    return field if isinstance(field, str) else ",".join(map(str, field if isinstance(field, Iterable) else [field]))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


signals.beat_init.connect(watch_beat)
