"""Lists schedules page by page, for deployments with a hundred thousand of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple

from taskapp.schedules.reader import Register
from taskapp.schedules.record import ScheduleRecord

STATES = ("active", "paused", "broken", "ended")
LISTED_MOST = 1_000
"""Up to this many schedules in a state are found by the set of their names; more are found fast by scanning all."""


class SchedulePage(NamedTuple):
    """One page of schedules, sorted by name."""

    schedules: list[ScheduleRecord]
    cursor: str
    """Name after which the next page starts; empty on the last page."""


def page(
    register: Register, prefix: str = "", state: str = "", after: str = "", limit: int = 50, within_seconds: float = 1.0
) -> SchedulePage:
    """Return a page of schedules, sorted by name.

    Args:
        register: Access to the schedules.
        prefix: Return only schedules whose names start with this.
        state: Return only schedules in this state, one of ``STATES``; empty for all.
        after: Cursor of the previous page; empty for the first page.
        limit: Maximum number of schedules.
        within_seconds: How long to search for schedules in ``state``; after that, the page ends early, and its cursor
            continues the search.

    Raises the errors of ``Register.all``.
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
