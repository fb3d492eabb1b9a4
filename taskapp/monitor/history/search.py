"""Searches of the history as SQL, and the cursors between pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, or_, select

from taskapp.engine.completions import STATES, Finished
from taskapp.errors.history import BadCursor, UnknownState
from taskapp.monitor.history.tables import tasks

SHOWN = [column for column in tasks.c if column.name != "traceback"]
"""Columns a page shows of a task."""
CELERYS = {"success": "succeeded", "failure": "failed", "revoked": "cancelled", "rejected": "dead"}


@dataclass(frozen=True)
class Query:
    """Filters for a search; a task must match all that are set."""

    type: str | None = None
    states: Sequence[str] = ()
    """Any of these states, by our names or Celery's; empty: all."""
    queue: str | None = None
    since: float | None = None
    """Finished at this time or later, Unix seconds."""
    until: float | None = None
    """Finished before this time, Unix seconds."""
    text: str | None = None
    """Text that the arguments contain, ignoring case."""


class Page(NamedTuple):
    """One page of matching tasks, newest first, without tracebacks."""

    tasks: list[Finished]
    next: str | None
    """Cursor of the next page; ``None`` on the last one."""


class Cursor(NamedTuple):
    """A position in the list: right after the task with this key."""

    finished_us: int
    id: str

    @classmethod
    def of(cls, text: str) -> Cursor:
        """Parse a cursor.

        Raises:
            BadCursor: ``text`` is not a valid cursor.
        """
        number, has_id, task_id = text.partition("-")
        if not (has_id and number.isascii() and number.isdigit() and len(number) <= 18):
            raise BadCursor(text)
        return cls(int(number), task_id)

    def __str__(self) -> str:
        return f"{self.finished_us}-{self.id}"

    @classmethod
    def at(cls, task: Finished) -> Cursor:
        """Return the cursor right after ``task``."""
        return cls(task.finished_us, task.id)

    @property
    def behind(self) -> ColumnElement[bool]:
        """Condition for the tasks after this position.

        Compares column by column: MariaDB uses no index for a comparison of two columns at once.
        """
        at = tasks.c.finished_us
        return and_(at <= self.finished_us, or_(at < self.finished_us, tasks.c.id < self.id))

    @property
    def not_behind(self) -> ColumnElement[bool]:
        """Condition for the tasks up to this position."""
        at = tasks.c.finished_us
        return and_(at >= self.finished_us, or_(at > self.finished_us, tasks.c.id >= self.id))


def conditions(query: Query) -> list[ColumnElement[bool]]:
    """Return the conditions of ``query``, except those on state and text."""
    found: list[ColumnElement[bool]] = []
    if query.type is not None:
        found.append(tasks.c.type == query.type)
    if query.queue is not None:
        found.append(tasks.c.queue == query.queue)
    if query.since is not None:
        found.append(tasks.c.finished_us >= int(query.since * 1_000_000))
    if query.until is not None:
        found.append(tasks.c.finished_us < int(query.until * 1_000_000))
    return found


def of_states(query: Query) -> list[list[ColumnElement[bool]]]:
    """Return one list of conditions per requested state; each is queried separately.

    No index yields the newest tasks of several states at once. Searches by type or queue are also split by state,
    so that a few indexes cover every search.

    Raises:
        UnknownState: ``query.states`` names a state that does not exist.
    """
    states = {state_named(name) for name in query.states}
    if not states and (query.type is not None or query.queue is not None):
        states = set(STATES)
    return [[tasks.c.state == state] for state in sorted(states)] or [[]]


def state_named(name: str) -> str:
    """Return our name for the state ``name``, which may be Celery's.

    Raises:
        UnknownState: No such state exists.
    """
    state = CELERYS.get(name.lower(), name.lower())
    if state not in STATES:
        raise UnknownState(name, STATES)
    return state


def page_of(query: Query, where: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    """Select ``limit`` tasks and one more, which shows whether there is a next page."""
    return _by_index(query, select(*SHOWN).where(*where).order_by(*newest_first()).limit(limit + 1))


def key_of(query: Query, where: Sequence[ColumnElement[bool]], number: int) -> Select[Any]:
    """Select the key of task ``number`` in the list, counted from 1, from an index alone."""
    key = select(tasks.c.finished_us, tasks.c.id).where(*where)
    return _by_index(query, key.order_by(*newest_first()).offset(number - 1).limit(1))


def _by_index(query: Query, selected: Select[Any]) -> Select[Any]:
    """Make MariaDB and MySQL use the index that has the order of the list; they may sort a million tasks instead."""
    names = {
        (True, True): "taskapp_history_both", (True, False): "taskapp_history_type",
        (False, True): "taskapp_history_queue", (False, False): "taskapp_history_state" if query.states else "PRIMARY",
    }  # fmt: skip
    hint = f"FORCE INDEX ({names[query.type is not None, query.queue is not None]})"
    return selected.with_hint(tasks, hint, "mysql").with_hint(tasks, hint, "mariadb")


def merged(parts: Iterable[Sequence[Finished]]) -> list[Finished]:
    """Return the tasks of all ``parts``, newest first."""
    return sorted((one for part in parts for one in part), key=Cursor.at, reverse=True)


def cut(found: list[Finished], limit: int) -> Page:
    """Return the page of the first ``limit`` tasks of ``found``, which has one more if there is a next page."""
    return Page(found[:limit], str(Cursor.at(found[limit - 1])) if len(found) > limit else None)


def newest_first() -> tuple[ColumnElement[Any], ...]:
    """Return the sort order of every list."""
    return tasks.c.finished_us.desc(), tasks.c.id.desc()


def has_text(text: str) -> ColumnElement[bool]:
    """Return the condition for tasks with ``text`` in their arguments."""
    return or_(tasks.c.args.icontains(text, autoescape=True), tasks.c.kwargs.icontains(text, autoescape=True))
