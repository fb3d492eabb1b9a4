"""Ticks prepared before they are due, and the arguments of the script that queues them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from taskapp.engine.producer import Message
from taskapp.schedules.misfire import DueNow, due_now
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.store import Make
from taskapp.schedules.times import Timing, tick_id

IN_TIME_MS = 1_000

logger = logging.getLogger(__name__)


class Ready(NamedTuple):
    """A schedule with its next tick prepared."""

    schedule: Schedule
    timing: Timing
    revision: str
    due_ms: int
    at_ms: int
    """When to send the tick (ms)."""
    next_ms: int | None
    messages: Sequence[Message]


class PreparedTick(NamedTuple):
    """Everything to queue for a schedule now."""

    ready: Ready
    """The schedule, with ``next_ms`` set to its next due time."""
    messages: list[Message]
    args: list[Any]
    """Arguments for ``tick.lua``."""


def prepared(schedule: Schedule, timing: Timing, revision: str, due_ms: int, at_ms: int, make: Make) -> Ready:
    """Return the schedule with the message of the tick due at ``due_ms``; raises the errors of ``make``."""
    following = timing.after(due_ms / 1_000)
    next_ms = round(following * 1_000) if following is not None else None
    return Ready(
        schedule, timing, revision, due_ms, at_ms, next_ms, make(schedule, due_ms, tick_id(schedule.name, due_ms))
    )


def queueing(ready: Ready, now_ms: float, make: Make) -> PreparedTick:
    """Return what to queue for ``ready`` now: usually its tick; several or none if due times were missed."""
    schedule, due_ms = ready.schedule, ready.due_ms
    now = DueNow([due_ms], 0, ready.next_ms)
    if (ready.next_ms is not None and ready.next_ms <= now_ms) or now_ms - ready.at_ms > IN_TIME_MS:
        now = due_now(schedule, ready.timing, due_ms, now_ms)
    ticks: list[Any] = []
    messages: list[Message] = []
    for tick_ms in now.sent:
        identity = tick_id(schedule.name, tick_ms)
        [message] = ready.messages if tick_ms == due_ms else make(schedule, tick_ms, identity)
        messages.append(message)
        ticks += (tick_ms, identity, message.queue, message.priority, message.blob)
    next_at_ms = 0 if now.next_ms is None else schedule.to_send_ms(ready.timing, now.next_ms)
    args = [
        schedule.name, ready.revision, due_ms, "" if now.next_ms is None else now.next_ms, next_at_ms, now.dropped,
        schedule.overlap, round(schedule.unfinished_seconds * 1_000), schedule.max_runs, len(now.sent), *ticks,
    ]  # fmt: skip
    if now.dropped:
        logger.warning("schedule %r: dropping %d missed due times", schedule.name, now.dropped)
    return PreparedTick(ready._replace(next_ms=now.next_ms), messages, args)
