"""Searches for text, which no index covers: newest tasks first, in steps, until a page is full or time is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from sqlalchemy import ColumnElement, Select

from taskapp.engine.completions import Finished
from taskapp.monitor.history.search import Cursor, Page, Query, cut, has_text, key_of, merged, page_of

LOOKED_AT_MOST = 25_000
"""Maximum number of tasks of each state to search for one page."""
SECONDS_MOST = 0.5
"""About how long one page may take. Rows far apart in a large table cost a hundred times more than neighbours."""
FIRST_STEP = 500

Where = Sequence[ColumnElement[bool]]
Keys = Callable[[Select[Any]], list[Cursor]]
Tasks = Callable[[Select[Any]], list[Finished]]


def page_with_text(keys_of: Keys, tasks_of: Tasks, query: Query, parts: Sequence[Where], limit: int) -> Page:
    """Return up to ``limit`` tasks with the text of ``query``: those found within the bounds above.

    Args:
        keys_of: Runs a select of keys.
        tasks_of: Runs a select of tasks.
        query: The search.
        parts: Conditions per state; see ``search.of_states``.
        limit: Maximum number of tasks.
    """
    steps, found = SearchSteps(), list[Finished]()
    place: Cursor | None = None
    while steps.size:
        behind = [[*part, *([place.behind] if place else [])] for part in parts]
        # Search every state only as far as the densest one reaches in this step; later tasks come in the next.
        place = max((key for part in behind for key in keys_of(key_of(query, part, steps.size))), default=None)
        among = [[*part, *([place.not_behind] if place else []), has_text(query.text or "")] for part in behind]
        found += merged(tasks_of(page_of(query, part, limit - len(found))) for part in among)
        if len(found) > limit or place is None:
            return cut(found, limit)
        steps.go_on()
    return Page(found, str(place))


class SearchSteps:
    """Number of tasks of each state to search next: grows with each step while time allows."""

    def __init__(self) -> None:
        self.size = min(FIRST_STEP, LOOKED_AT_MOST)
        self._left = LOOKED_AT_MOST - self.size
        self._began_at = monotonic()
        self._ends_at = self._began_at + SECONDS_MOST

    def go_on(self) -> None:
        """Set the next ``size`` from the time the last step took; 0 ends the search."""
        now = monotonic()
        in_time = int(self.size * (self._ends_at - now) / max(now - self._began_at, 1e-6))
        self.size = min(2 * self.size, self._left, in_time if in_time >= FIRST_STEP else 0)
        self._left -= self.size
        self._began_at = now
