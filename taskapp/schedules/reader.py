"""Read access to schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Literal

from taskapp.errors.schedules import UnknownSchedule
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered
from taskapp.schedules.calendars import Calendars
from taskapp.schedules.overview import Overview, overview
from taskapp.schedules.record import LeaderInfo, ScheduleRecord, Tick, known_from, tick_from
from taskapp.schedules.schedule import Elsewhere, Schedule
from taskapp.schedules.times import Timing

PAGE = 500
LIKENED_MOST = 10_000


class Register:
    """Read access to the schedules of a deployment. Methods raise the errors of ``Link.command``.

    Args:
        link: Connection to the server of the schedules.
        prefix: Prefix of the keys.
    """

    command = "taskapp"
    """How to call ``taskapp`` for the app of these schedules, for advice."""

    def __init__(self, link: Link, prefix: str) -> None:
        self.link, self.prefix = link, prefix
        self.keys = Keys(prefix)
        self.calendars = Calendars(link, prefix)

    def overview(self) -> Overview:
        """Return the number of schedules in each state, and how late ticks are."""
        return overview(self.link, self.prefix)

    def all(self, prefix: str = "", after: str = "", at_once: int = PAGE) -> Iterator[ScheduleRecord]:
        """Yield all schedules whose names start with ``prefix``, sorted by name; unreadable ones as broken.

        Args:
            prefix: Start of the names.
            after: Skip names up to and including this one.
            at_once: Number of schedules to read in one round trip.
        """
        low, high = f"[{prefix}".encode() if prefix else b"-", f"[{prefix}".encode() + b"\xff" if prefix else b"+"
        if after.encode() >= prefix.encode() and after:
            low = f"({after}".encode()
        while names := self.link.command("ZRANGEBYLEX", self.keys("schedules"), low, high, "LIMIT", 0, at_once):
            yield from self.these([name.decode() for name in names])
            low = b"(" + names[-1]

    def these(self, names: Sequence[str]) -> Iterator[ScheduleRecord]:
        """Yield the schedules named in ``names`` that exist, with their last ticks, read all at once."""
        about = self.link.pipeline([("HGETALL", self.keys("schedule", name)) for name in names])
        last = self.link.pipeline([("LINDEX", self.keys("schedule_runs", name), 0) for name in names])
        for name, fields, tick in zip(names, about, last, strict=True):
            if isinstance(fields, Exception):  # the key holds another type
                yield known_from(name, [])._replace(broken=str(fields))
            elif fields:
                is_tick = isinstance(tick, bytes)
                yield known_from(name, fields)._replace(last=tick_from(tick) if is_tick else None)

    def named_in(self, state: Literal["paused", "broken"]) -> list[str]:
        """Return the names of all schedules in ``state``, sorted."""
        return sorted(name.decode() for name in self.link.command("SMEMBERS", self.keys(f"schedules_{state}")))

    def get(self, name: str) -> ScheduleRecord:
        """Return one schedule, without its last tick.

        Raises:
            UnknownSchedule: No schedule has that name.
        """
        fields = self.link.command("HGETALL", self.keys("schedule", name))
        if not fields:
            raise self.unknown(name)
        return known_from(name, fields)

    def unknown(self, name: str) -> UnknownSchedule:
        """Return the error for an unknown name, which suggests similar ones."""
        known = self.link.command("ZRANGE", self.keys("schedules"), 0, LIKENED_MOST - 1)
        return UnknownSchedule(name, (each.decode() for each in known), self.command)

    def existing(self, names: Sequence[str]) -> set[str]:
        """Return the elements of ``names`` that are names of schedules."""
        found: set[str] = set()
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            scores = all_answered(self.link.pipeline([("ZSCORE", self.keys("schedules"), name) for name in page]))
            found.update(name for name, score in zip(page, scores, strict=True) if score is not None)
        return found

    def ticks(self, name: str) -> list[Tick]:
        """Return the last ticks of a schedule, latest first; up to ``RUNS_KEPT``."""
        texts = self.link.command("LRANGE", self.keys("schedule_runs", name), 0, -1)
        return [tick_from(text) for text in texts]

    def upcoming(self, name: str, count: int = 10, after: float | None = None) -> list[float]:
        """Return up to ``count`` future due times in Unix seconds, or those later than ``after`` if it is given.

        For a paused schedule, return the due times it would have if it were resumed now.

        Raises:
            UnknownSchedule: No schedule has that name.
            BadSchedule: Its calendar does not exist.
        """
        known = self.get(name)
        schedule = known.schedule
        first = [known.due_at] if after is None and known.due_at is not None and known.state == "active" else []
        if isinstance(schedule.when, Elsewhere):
            return first
        if schedule.max_runs:
            count = min(count, max(schedule.max_runs - known.runs, 0))
        timing = self.timing_of(schedule)
        instant = first[0] if first else (after if after is not None else self.now())
        return [*first, *islice(_following(timing.after, instant), max(count - len(first), 0))][:count]

    def leader(self) -> LeaderInfo:
        """Return the leading beat."""
        (name, token, tick_at, until), (seconds, micros), offset = all_answered(self.link.pipeline([
            ("HMGET", self.keys("beat"), "leader", "token", "tick_at", "until"),
            ("TIME",),
            ("HGET", self.keys("clock"), "offset"),
        ]))  # fmt: skip
        now_ms = int(seconds) * 1_000 + int(micros) // 1_000 + float(offset or 0)
        leads = name if float(until or 0) > now_ms else b""
        return LeaderInfo(leads.decode(), int(token or 0), float(tick_at) / 1_000 if tick_at else None)

    def configured(self) -> set[str]:
        """Return the names of the schedules that come from the configuration."""
        return {name.decode() for name in self.link.command("SMEMBERS", self.keys("schedules_config"))}

    def timing_of(self, schedule: Schedule) -> Timing:
        """Return the due times of a schedule, excluding the days of its calendar.

        Raises:
            BadSchedule: Its calendar does not exist.
        """
        return schedule.timing(self.calendars.days(schedule.calendar))

    def now(self) -> float:
        """Return Redis' time in Unix seconds, the clock that the leader uses."""
        seconds, micros = self.link.command("TIME")
        return int(seconds) + int(micros) / 1_000_000


def _following(after: Callable[[float], float | None], instant: float) -> Iterator[float]:
    while (due_at := after(instant)) is not None:
        yield due_at
        instant = due_at
