"""What people ask the history for, as SQL, and where the next page begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, or_, select

from taskapp.broker.finished import STATES, Finished
from taskapp.errors.history import BadCursor, UnknownState
from taskapp.monitor.history.tables import tasks

SHOWN = [column for column in tasks.c if column.name != "traceback"]
"""What a page shows of a task."""
TEXT_LOOKED_AT = 100_000
"""Texts have no index: so many tasks are looked at for one page, the newest first."""
CELERYS = {"success": "succeeded", "failure": "failed", "revoked": "cancelled", "rejected": "dead"}


@dataclass(frozen=True)
class Query:
    """Which tasks: those that fit all that is given."""

    type: str | None = None
    states: Sequence[str] = ()
    """Any of these, in our words or Celery's."""
    queue: str | None = None
    since: float | None = None
    """Finished then or later, Unix seconds."""
    until: float | None = None
    """Finished before, Unix seconds."""
    text: str | None = None
    """Stands in the text of its arguments, whatever the case of its letters."""


class Page(NamedTuple):
    """Some of the tasks asked for, the last finished first, without tracebacks."""

    tasks: list[Finished]
    next: str | None
    """Where the next page begins; ``None``: there is none."""


class Cursor(NamedTuple):
    """A place in the list: behind the task of this key."""

    finished_us: int
    id: str

    @classmethod
    def of(cls, text: str) -> Cursor:
        """Return the place that ``text`` names.

        Raises:
            BadCursor: It names none.
        """
        number, has_id, task_id = text.partition("-")
        if not (has_id and number.isascii() and number.isdigit() and len(number) <= 18):
            raise BadCursor(text)
        return cls(int(number), task_id)

    def __str__(self) -> str:
        return f"{self.finished_us}-{self.id}"

    @property
    def behind(self) -> ColumnElement[bool]:
        """The tasks behind it. MariaDB follows no index for a comparison of two columns at once."""
        at = tasks.c.finished_us
        return and_(at <= self.finished_us, or_(at < self.finished_us, tasks.c.id < self.id))

    @property
    def not_behind(self) -> ColumnElement[bool]:
        """The others."""
        at = tasks.c.finished_us
        return and_(at >= self.finished_us, or_(at > self.finished_us, tasks.c.id >= self.id))


def conditions(query: Query) -> list[ColumnElement[bool]]:
    """Return what holds for the tasks of ``query``, but for their text.

    Raises:
        UnknownState: No task ends like that.
    """
    found: list[ColumnElement[bool]] = []
    if query.type is not None:
        found.append(tasks.c.type == query.type)
    if query.queue is not None:
        found.append(tasks.c.queue == query.queue)
    states = sorted({state_named(name) for name in query.states})
    if len(states) == 1:
        found.append(tasks.c.state == states[0])
    elif states:
        found.append(tasks.c.state.in_(states))
    if query.since is not None:
        found.append(tasks.c.finished_us >= int(query.since * 1_000_000))
    if query.until is not None:
        found.append(tasks.c.finished_us < int(query.until * 1_000_000))
    return found


def state_named(name: str) -> str:
    """Return our word for the state ``name``.

    Raises:
        UnknownState: No task ends like that.
    """
    state = CELERYS.get(name.lower(), name.lower())
    if state not in STATES:
        raise UnknownState(name, STATES)
    return state


def page_of(where: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    """Return what selects ``limit`` tasks and one more, which says whether there is a next page."""
    return select(*SHOWN).where(*where).order_by(*newest_first()).limit(limit + 1)


def last_looked_at(where: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """Return what selects the key of the last task a search for a text looks at."""
    key = select(tasks.c.finished_us, tasks.c.id).where(*where)
    return key.order_by(*newest_first()).offset(TEXT_LOOKED_AT - 1).limit(1)


def newest_first() -> tuple[ColumnElement[Any], ...]:
    """Return the order of every list."""
    return tasks.c.finished_us.desc(), tasks.c.id.desc()


def has_text(text: str) -> ColumnElement[bool]:
    """Return what holds for tasks with ``text`` in their arguments."""
    return or_(tasks.c.args.icontains(text, autoescape=True), tasks.c.kwargs.icontains(text, autoescape=True))
