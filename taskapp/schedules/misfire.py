"""Misfire policies: which due times to send and which to drop when no beat sent them in time."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import Timing

COUNTED_MOST = 10_000


class DueNow(NamedTuple):
    """Due times up to now, after applying the misfire policy."""

    sent: list[int]
    """Due times to send, in ascending order (ms)."""
    dropped: int
    """Number of due times to drop, counted up to ``COUNTED_MOST``."""
    next_ms: int | None
    """The next due time in the future (ms)."""


def due_now(schedule: Schedule, timing: Timing, due_ms: int, now_ms: float) -> DueNow:
    """Apply the misfire policy to the due times from ``due_ms`` to ``now_ms``.

    Usually there is just one. There are several if no beat was running, it could not reach the server, or the
    clock was set forward.
    """
    most = schedule.catch_up_most if schedule.misfire == "catch_up" else 1
    start_ms, uncounted = _start(timing, due_ms, now_ms)
    last: deque[int] = deque(maxlen=most)
    count = uncounted
    following: int | None = start_ms
    while following is not None and schedule.to_send_ms(timing, following) <= now_ms:
        last.append(following)
        count += 1
        after = timing.after(following / 1_000)
        following = round(after * 1_000) if after is not None else None
    sent = list(last)
    if schedule.misfire == "skip":
        earliest_ms = now_ms - schedule.grace_seconds * 1_000
        sent = [due for due in sent if schedule.to_send_ms(timing, due) >= earliest_ms]
    return DueNow(sent, min(count - len(sent), COUNTED_MOST), following)


def _start(timing: Timing, due_ms: int, now_ms: float) -> tuple[int, int]:
    """Return a due time to start from, about ``COUNTED_MOST`` before now, and the number of due times before it."""
    gap = timing.after(due_ms / 1_000)
    if gap is None or (now_ms - due_ms) / max(gap * 1_000 - due_ms, 1.0) <= COUNTED_MOST:
        return due_ms, 0
    # For example one due every second, after a week: old due times are dropped under any policy.
    start = timing.after((now_ms - (gap * 1_000 - due_ms) * COUNTED_MOST) / 1_000)
    return (round(start * 1_000), COUNTED_MOST) if start is not None and start * 1_000 <= now_ms else (due_ms, 0)
