"""What is known of a schedule: what people wrote down, what is due next, what came of its ticks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.schedule import Elsewhere, Schedule, schedule_from

COUNTS = ("runs", "missed", "skipped", "failures")


class Tick(NamedTuple):
    """One due time of a schedule, and what came of it."""

    id: str
    due_at: float
    sent_at: float
    state: str
    """``QUEUED``; ``WAITING`` for the run before it; ``SKIPPED``; or how its run ended."""
    took_seconds: float | None


class ScheduleRecord(NamedTuple):
    """A schedule and how it goes."""

    schedule: Schedule
    revision: str
    due_at: float | None
    """The next due time, Unix seconds; ``None``: never again, or not as long as it is paused."""
    paused: str
    """Why it is paused, or empty."""
    broken: str
    """What is wrong with it, or empty."""
    runs: int
    """Ticks that were queued."""
    missed: int
    """Due times that were dropped: nobody was there for them in time."""
    skipped: int
    """Ticks dropped because the run before was unfinished."""
    failures: int
    """Failures in a row."""
    unfinished: str
    """The id of a run that was not heard of yet, or empty."""
    last: Tick | None = None
    """The last tick, where all were asked for."""

    @property
    def state(self) -> str:
        """In one word: ``broken``, ``paused``, ``active`` or ``ended``."""
        if self.broken or self.paused:
            return "broken" if self.broken else "paused"
        return "active" if self.due_at is not None else "ended"


class LeaderInfo(NamedTuple):
    """The beat that leads."""

    name: str
    """Empty: none does."""
    token: int
    """Greater than that of any that led before."""
    tick_at: float | None
    """When ticks were last queued, Unix seconds."""


def known_from(name: str, fields: Sequence[bytes]) -> ScheduleRecord:
    """Return the schedule of a hash, ``fields`` being names and values in turn; one that cannot be read is broken."""
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
    """Return a tick as the list of them has it."""
    said = json.loads(text)
    took = said.get("took")
    return Tick(
        said["id"], said["due"] / 1_000, said["sent"] / 1_000, said["state"], took / 1_000 if took is not None else None
    )
