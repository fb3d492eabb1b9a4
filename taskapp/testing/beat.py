"""The beat of a test: queues the ticks of ``beat_schedule`` when the clock reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.beat import ScheduleEntry

from taskapp.beat.scheduler import configured
from taskapp.celery_internals import entry_call
from taskapp.errors.testing import UnknownEntry
from taskapp.schedules.messages import made
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import tick_id
from taskapp.testing.engine import MemoryEngine

_Entry: Any = ScheduleEntry  # the stubs are incomplete


class InProcessBeat:
    """Queues ticks with the messages and at the times of a real beat."""

    def __init__(self, app: Any, engine: MemoryEngine) -> None:
        self._app, self._engine = app, engine
        self._entries: dict[str, tuple[Any, Schedule]] = {}
        self._due: dict[str, int] = {}

    def start(self, names: tuple[str, ...]) -> None:
        """Start to queue the ticks of the entries ``names``, or of all, that are due from now on.

        Raises:
            UnknownEntry: ``beat_schedule`` has no such entry.
            BadSchedule: An entry is invalid.
        """
        known: Mapping[str, Any] = self._app.conf.beat_schedule
        for name in names or known:
            if name not in known:
                raise UnknownEntry(name, known)
            entry = _Entry(**{**known[name], "name": name, "app": self._app})
            self._entries[name] = entry, configured(entry, str(self._app.timezone))
            self._move(name, self._engine.clock.now)

    def _move(self, name: str, after: float) -> None:
        due_at = self._entries[name][1].timing().after(after)
        self._due.pop(name, None)
        if due_at is not None:
            self._due[name] = round(due_at * 1_000)

    def next_due_ms(self) -> int | None:
        """Return when the next tick is due; ``None``: none will be."""
        return min(self._due.values(), default=None)

    def tick(self) -> None:
        """Queue the ticks that are due, earlier ones first."""
        while self._due:
            due_ms, name = min((due_ms, name) for name, due_ms in self._due.items())
            if not self._engine.clock.has_come(due_ms):
                return
            entry, schedule = self._entries[name]
            call = (*entry_call(entry), entry.options)
            self._engine.push(made(self._app, schedule, due_ms, tick_id(name, due_ms), call))
            self._move(name, due_ms / 1_000)
