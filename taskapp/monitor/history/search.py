"""What people ask the history for, as SQL, and where the next page begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, or_, select

from taskapp.engine.completions import STATES, Finished
from taskapp.errors.history import BadCursor, UnknownState
from taskapp.monitor.history.tables import tasks

SHOWN = [column for column in tasks.c if column.name != "traceback"]
"""What a page shows of a task."""
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

    @classmethod
    def at(cls, task: Finished) -> Cursor:
        """Return the place of ``task``."""
        return cls(task.finished_us, task.id)

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
    """Return what holds for the tasks of ``query``, but for their states and text."""
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
    """Return what holds for the tasks of each state asked for, which are read one after the other.

    Of several at once, no index gives the newest. That is why a type or queue of any state is read by state, too:
    few indexes then answer all that can be asked.

    Raises:
        UnknownState: No task ends like that.
    """
    states = {state_named(name) for name in query.states}
    if not states and (query.type is not None or query.queue is not None):
        states = set(STATES)
    return [[tasks.c.state == state] for state in sorted(states)] or [[]]


def state_named(name: str) -> str:
    """Return our word for the state ``name``.

    Raises:
        UnknownState: No task ends like that.
    """
    state = CELERYS.get(name.lower(), name.lower())
    if state not in STATES:
        raise UnknownState(name, STATES)
    return state


def page_of(query: Query, where: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    """Return what selects ``limit`` tasks and one more, which says whether there is a next page."""
    return _by_index(query, select(*SHOWN).where(*where).order_by(*newest_first()).limit(limit + 1))


def key_of(query: Query, where: Sequence[ColumnElement[bool]], number: int) -> Select[Any]:
    """Return what selects the key of the task that is this many in the list; an index has it."""
    key = select(tasks.c.finished_us, tasks.c.id).where(*where)
    return _by_index(query, key.order_by(*newest_first()).offset(number - 1).limit(1))


def _by_index(query: Query, selected: Select[Any]) -> Select[Any]:
    """Return what selects the same by the index that has its order: MariaDB may sort a million tasks instead."""
    names = {
        (True, True): "taskapp_history_both", (True, False): "taskapp_history_type",
        (False, True): "taskapp_history_queue", (False, False): "taskapp_history_state" if query.states else "PRIMARY",
    }  # fmt: skip
    hint = f"FORCE INDEX ({names[query.type is not None, query.queue is not None]})"
    return selected.with_hint(tasks, hint, "mysql").with_hint(tasks, hint, "mariadb")


def merged(parts: Iterable[Sequence[Finished]]) -> list[Finished]:
    """Return the tasks of all ``parts``, the newest first."""
    return sorted((one for part in parts for one in part), key=Cursor.at, reverse=True)


def cut(found: list[Finished], limit: int) -> Page:
    """Return the first ``limit`` of ``found``, which has one more if there is a next page."""
    return Page(found[:limit], str(Cursor.at(found[limit - 1])) if len(found) > limit else None)


def newest_first() -> tuple[ColumnElement[Any], ...]:
    """Return the order of every list."""
    return tasks.c.finished_us.desc(), tasks.c.id.desc()


def has_text(text: str) -> ColumnElement[bool]:
    """Return what holds for tasks with ``text`` in their arguments."""
    return or_(tasks.c.args.icontains(text, autoescape=True), tasks.c.kwargs.icontains(text, autoescape=True))
