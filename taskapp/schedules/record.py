"""The record of a schedule: its definition, its next due time, and the outcome of its ticks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.schedule import Elsewhere, Schedule, schedule_from

COUNTS = ("runs", "missed", "skipped", "failures")


class Tick(NamedTuple):
    """One due time of a schedule and its outcome."""

    id: str
    due_at: float
    sent_at: float
    state: str
    """``QUEUED``, ``WAITING`` (for the previous run), ``SKIPPED``, or the state in which its run ended."""
    took_seconds: float | None


class ScheduleRecord(NamedTuple):
    """A schedule and its current state."""

    schedule: Schedule
    revision: str
    due_at: float | None
    """Next due time in Unix seconds; ``None`` if it will never be due again, or is paused."""
    paused: str
    """Why it is paused; empty if it is not."""
    broken: str
    """What is wrong with it; empty if nothing."""
    runs: int
    """Number of ticks queued."""
    missed: int
    """Number of due times dropped because no beat sent them in time."""
    skipped: int
    """Number of ticks dropped because the previous run was unfinished."""
    failures: int
    """Number of consecutive failures."""
    unfinished: str
    """Task id of a run that has not reported its end; empty if there is none."""
    last: Tick | None = None
    """The last tick; only set by ``Register.all`` and ``Register.these``."""

    @property
    def state(self) -> str:
        """``broken``, ``paused``, ``active`` or ``ended``."""
        if self.broken or self.paused:
            return "broken" if self.broken else "paused"
        return "active" if self.due_at is not None else "ended"


class LeaderInfo(NamedTuple):
    """The leading beat."""

    name: str
    """Name of the beat; empty if none leads."""
    token: int
    """Token of its lease, greater than those of all earlier leaders."""
    tick_at: float | None
    """When ticks were last queued, in Unix seconds; ``None`` if never."""


def known_from(name: str, fields: Sequence[bytes]) -> ScheduleRecord:
    """Return the schedule in a hash, whose ``fields`` alternate names and values; an unreadable one as broken."""
    values: dict[str, Any] = {
        key.decode(): value.decode(errors="replace") for key, value in zip(fields[::2], fields[1::2], strict=True)
    }
    broken = values.get("broken", "")
    try:
        schedule = schedule_from(json.loads(values["about"]))
        due_at = float(values["due"]) / 1_000 if values.get("due") else None
        counts = {name: int(values.get(name, 0)) for name in COUNTS}
    except (BadSchedule, ValueError, KeyError, TypeError, AttributeError) as error:
        schedule, due_at, counts = Schedule(name, "unreadable", Elsewhere("unreadable")), None, dict.fromkeys(COUNTS, 0)
        broken = broken or f"cannot be read: {error}"
    return ScheduleRecord(
        schedule, values.get("revision", ""), due_at, values.get("paused", ""), broken,
        runs=counts["runs"], missed=counts["missed"], skipped=counts["skipped"], failures=counts["failures"],
        unfinished=values.get("unfinished", ""),
    )  # fmt: skip


def tick_from(text: bytes) -> Tick:
    """Return a tick from its JSON in Redis."""
    tick = json.loads(text)
    took = tick.get("took")
    return Tick(
        tick["id"], tick["due"] / 1_000, tick["sent"] / 1_000, tick["state"], took / 1_000 if took is not None else None
    )
