"""Submits whose unique key another task has: they get the result of that task, or are refused.

Messages may be pushed later than they are submitted, together: ``refusals`` collects what is refused until then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from taskapp.engine.batch import Bulk, current
from taskapp.engine.producer import Taken
from taskapp.errors import DuplicateTask

REFUSED = "refused"


class UniqueCall:
    """One submit of a unique task; called if another task has its key."""

    __slots__ = ("_is_pushed_at_once", "_refusals", "_results", "_task")

    def __init__(self, task: str, *results: Any) -> None:
        """Keep its ``results``, which are to be those of the task that has the key."""
        self._task = task
        self._results = [*results, *_frozen.get()]
        bulk = current()
        self._refusals: dict[str, tuple[str, str]] = {} if bulk is None else _of_bulks.setdefault(bulk, {})
        self._is_pushed_at_once = bulk is None

    def __call__(self, taken: Taken) -> None:
        """Note that another task has the key."""
        if taken.outcome == REFUSED:
            self._refusals[taken.id] = (self._task, taken.other)
            return
        for result in self._results:
            _continue_as(result, taken.other)

    def check(self) -> None:
        """Raise an error if it is pushed already and was refused; errors are those of ``raise_refused``."""
        if self._is_pushed_at_once:
            _raise(self._refusals)


_of_bulks: WeakKeyDictionary[Bulk, dict[str, tuple[str, str]]] = WeakKeyDictionary()
_frozen: ContextVar[tuple[Any, ...]] = ContextVar("taskapp_frozen", default=())


@contextmanager
def known_as(result: Any) -> Iterator[None]:
    """Let the submit inside change ``result``, which a signature has made before, with its own."""
    token = _frozen.set((result,))
    try:
        yield
    finally:
        _frozen.reset(token)


def raise_refused(bulk: Bulk) -> None:
    """Raise an error if a task collected in ``bulk``, which is pushed, was refused.

    Raises:
        DuplicateTask: Names all that were refused; the others are queued.
    """
    if current() is not bulk:  # else it belongs to a block around this one, and is not pushed yet
        _raise(_of_bulks.pop(bulk, {}))


def _raise(refusals: dict[str, tuple[str, str]]) -> None:
    if refusals:
        task = next(iter(refusals.values()))[0]
        raise DuplicateTask(task, {refused: other for refused, (_, other) in refusals.items()})


def _continue_as(result: Any, task_id: str) -> None:
    """Make ``result`` that of the task ``task_id``; a wait that has been prepared follows."""
    result.backend.remove_pending_result(result)
    result.id = task_id
    if "on_ready" in vars(result):
        result.backend.add_pending_result(result)
