"""``celery beat`` where schedules are in Redis: any number of beats, one of which leads. Imported by beat alone."""

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
from taskapp.engine.producer import Message
from taskapp.errors import TaskappError
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.leader import STANDBY_SECONDS, ScheduleLeader
from taskapp.schedules.messages import made, messages_of
from taskapp.schedules.outbox import Broker
from taskapp.schedules.schedule import Elsewhere, Schedule
from taskapp.schedules.times import Crontab, Interval, Solar, When
from taskapp.transport.transport import is_over_redis

# The stubs lack half of it.
_beat: Any = beat
_Scheduler: Any = beat.Scheduler

CRONTAB_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")

logger = get_logger("celery.beat")


class Scheduler(_Scheduler):
    """Queues what is due as long as it leads, see ``taskapp.schedules``; keeps no file."""

    turn_due_at = 0.0
    """When it is to turn next at the latest, by the monotonic clock."""
    is_connecting = False
    """Whether it waits for its broker, as long as that takes; its loop does not turn meanwhile."""
    _leader: ScheduleLeader | None = None
    _is_turning = False

    @property
    def leader(self) -> ScheduleLeader:
        """What contends for the lead; made at the first turn."""
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
                broker=Broker(self.app) if publishes else None,
            )  # fmt: skip
        return self._leader

    @property
    def is_in_touch(self) -> bool:
        """Whether the server answers."""
        return self._leader is not None and self._leader.is_in_touch

    def tick(self, *_: Any, **__: Any) -> float:
        """Queue what is due, wait until something is; return that there is nothing to sleep."""
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
        """Say that there is nothing to write down."""
        return False

    def close(self) -> None:
        """Let another beat lead."""
        # Celery's signal handler calls this in the midst of a turn, which may hold a lock; it does so again at the end.
        if self._leader is not None and not self._is_turning:
            self._leader.resign()
            self._held.close()

    # --- what the configuration says -----------------------------------------------------------------

    def _merge_configured(self) -> Iterator[None]:
        """Keep the entries of ``beat_schedule`` in Redis, and nothing that was one."""
        gone = self._store.configured()
        for name, entry in self.schedule.items():
            try:
                if self._store.put_configured(configured(entry, str(self.app.conf.timezone or "UTC"))):
                    gone.discard(name)
                else:
                    logger.warning("beat_schedule's %r is not used: there is a schedule of that name in Redis", name)
            except TaskappError as error:
                logger.error("beat_schedule's %r is not used: %s", name, error)
            yield
        for name in gone:
            self._store.remove(name, is_configured=True)
            yield

    def _resolve(self, schedule: Schedule) -> Schedule:
        if not isinstance(schedule.when, Elsewhere):
            return schedule
        entry = self.schedule.get(schedule.name)
        if entry is None:
            why = "this beat's configuration has no such entry"
            raise BadSchedule("when", schedule.when.said, why, "give all beats the same configuration")
        return replace(schedule, when=OwnSchedule(entry.schedule))

    def _make(self, schedule: Schedule, due_ms: int, identity: str) -> Sequence[Message]:
        entry = self.schedule.get(schedule.name) if schedule.source == "config" else None
        if entry is None:
            return messages_of(self.app, schedule, due_ms, identity)
        # As it is here: what is no JSON, and what is to be computed each time.
        call = (*entry_call(entry), entry.options)
        return made(self.app, schedule, due_ms, identity, call)

    def _cancel(self, ids: list[str]) -> None:
        self.app.control.revoke(ids, terminate=True)

    @property
    def info(self) -> str:
        """What beat prints as it starts."""
        return "    . schedules -> in Redis; see: taskapp schedules list"


@dataclass(frozen=True)
class OwnSchedule:
    """A schedule class of the application's own."""

    schedule: Any

    def after(self, instant: float) -> float | None:
        """Return when it is due after ``instant``, as if it had run then."""
        then = datetime.fromtimestamp(instant, UTC)
        self.schedule.nowfun = lambda: then
        remaining = self.schedule.remaining_estimate(then)
        return instant + max(float(remaining.total_seconds()), 1.0)

    def as_dict(self) -> dict[str, Any]:
        """Return what people see of it."""
        return Elsewhere(repr(self.schedule)).as_dict()


def configured(entry: Any, zone: str) -> Schedule:
    """Return an entry of ``beat_schedule`` as a schedule; its arguments as far as they are JSON.

    Raises:
        BadSchedule: It cannot be one; says what is wrong.
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
    """Return the times of one of Celery's schedule objects."""
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
