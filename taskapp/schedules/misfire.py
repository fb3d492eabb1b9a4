"""What becomes of due times that nobody was there for."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import Timing

COUNTED_MOST = 10_000


class DueNow(NamedTuple):
    """Due times that have come."""

    sent: list[int]
    """Those to send, ms, in their order."""
    dropped: int
    """How many are not; at most ``COUNTED_MOST`` are counted."""
    next_ms: int | None
    """The first that has not come."""


def due_now(schedule: Schedule, timing: Timing, due_ms: int, now_ms: float) -> DueNow:
    """Return what is to be sent until ``now_ms`` of the due times from ``due_ms`` on, by the misfire policy.

    Usually there is one, just now. Several have come when no beat was there, or when it could not
    reach the server, or when the clock was set forward.
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
    """Return a due time that about ``COUNTED_MOST`` others follow until now, and how many are before it."""
    gap = timing.after(due_ms / 1_000)
    if gap is None or (now_ms - due_ms) / max(gap * 1_000 - due_ms, 1.0) <= COUNTED_MOST:
        return due_ms, 0
    # A second's schedule after a week: what is far back is dropped whatever the policy.
    start = timing.after((now_ms - (gap * 1_000 - due_ms) * COUNTED_MOST) / 1_000)
    return (round(start * 1_000), COUNTED_MOST) if start is not None and start * 1_000 <= now_ms else (due_ms, 0)
