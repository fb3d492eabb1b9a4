"""Looking for a text, which no index finds: the newest tasks first, in steps, until a page is full or time is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from sqlalchemy import ColumnElement, Select

from taskapp.engine.completions import Finished
from taskapp.monitor.history.search import Cursor, Page, Query, cut, has_text, key_of, merged, page_of

LOOKED_AT_MOST = 25_000
"""So many tasks of each state are looked at for one page."""
SECONDS_MOST = 0.5
"""A page takes about so long: rows that lie far apart in a large table cost a hundred times what neighbours do."""
FIRST_STEP = 500

Where = Sequence[ColumnElement[bool]]
Keys = Callable[[Select[Any]], list[Cursor]]
Tasks = Callable[[Select[Any]], list[Finished]]


def page_with_text(keys_of: Keys, tasks_of: Tasks, query: Query, parts: Sequence[Where], limit: int) -> Page:
    """Return the next ``limit`` tasks with the text of ``query``, those that were found so far.

    Args:
        keys_of: Returns the keys that are selected.
        tasks_of: The same of tasks.
        query: What is asked for.
        parts: What holds for the tasks of each state, which are read one after the other.
        limit: So many at most.
    """
    steps, found = SearchSteps(), list[Finished]()
    place: Cursor | None = None
    while steps.size:
        behind = [[*part, *([place.behind] if place else [])] for part in parts]
        # Of all states none is looked at further than the one that has most tasks: what is behind comes later.
        place = max((key for part in behind for key in keys_of(key_of(query, part, steps.size))), default=None)
        among = [[*part, *([place.not_behind] if place else []), has_text(query.text or "")] for part in behind]
        found += merged(tasks_of(page_of(query, part, limit - len(found))) for part in among)
        if len(found) > limit or place is None:
            return cut(found, limit)
        steps.go_on()
    return Page(found, str(place))


class SearchSteps:
    """How many tasks of each state to look at next: more each time, as far as time allows."""

    def __init__(self) -> None:
        self.size = min(FIRST_STEP, LOOKED_AT_MOST)
        self._left = LOOKED_AT_MOST - self.size
        self._began_at = monotonic()
        self._ends_at = self._began_at + SECONDS_MOST

    def go_on(self) -> None:
        """Choose the next ``size``, by the time that the last step took; 0: it is enough."""
        now = monotonic()
        in_time = int(self.size * (self._ends_at - now) / max(now - self._began_at, 1e-6))
        self.size = min(2 * self.size, self._left, in_time if in_time >= FIRST_STEP else 0)
        self._left -= self.size
        self._began_at = now
