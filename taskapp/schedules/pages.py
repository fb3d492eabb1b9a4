"""Schedules a page at a time, for whoever looks at a hundred thousand of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from taskapp.schedules.reader import Register
from taskapp.schedules.record import ScheduleRecord

STATES = ("active", "paused", "broken", "ended")
LISTED_MOST = 1_000
"""Up to so many in a state are taken from the list of their names; more are found soon among all."""


class SchedulePage(NamedTuple):
    """Some schedules, by name."""

    schedules: list[ScheduleRecord]
    cursor: str
    """The name behind which the next page begins; empty: this is the last."""


def page(
    register: Register, prefix: str = "", state: str = "", after: str = "", limit: int = 50, within_seconds: float = 1.0
) -> SchedulePage:
    """Return schedules whose names begin with ``prefix``.

    Args:
        register: Where they are.
        prefix: How their names begin.
        state: One of ``STATES``: only those; empty: all.
        after: A cursor.
        limit: At most so many.
        within_seconds: How long to look for those in ``state``; then the page ends, and its cursor goes on from there.

    Errors are those of ``Register.all``.
    """
    deadline, found = monotonic() + within_seconds, list[ScheduleRecord]()
    for known in _candidates(register, prefix, state, after, limit):
        if state in ("", known.state):
            if len(found) == limit:
                return SchedulePage(found, found[-1].schedule.name)
            found.append(known)
        elif monotonic() > deadline:
            return SchedulePage(found, known.schedule.name)
    return SchedulePage(found, "")


def _candidates(register: Register, prefix: str, state: str, after: str, limit: int) -> Iterator[ScheduleRecord]:
    if not state:
        yield from register.all(prefix, after, limit + 1)
    elif state not in ("paused", "broken") or register.overview().states[state] > LISTED_MOST:
        yield from register.all(prefix, after)
    else:
        names = register.named_in("paused" if state == "paused" else "broken")
        wanted = [name for name in names[bisect_right(names, after) if after else 0 :] if name.startswith(prefix)]
        for start in range(0, len(wanted), limit + 1):
            yield from register.these(wanted[start : start + limit + 1])
