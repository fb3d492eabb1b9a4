"""The registry of task types, in which every type is one of ours, whatever class it derives from.

``celery-once``, ``AbortableTask`` and Celery's own examples derive from plain ``celery.Task``. Such a task gets a class
with ours behind its own: what it overrides holds, everything else is ``taskapp.app.task.Task``.
"""

from __future__ import annotations

import types
from typing import Any

import celery
from celery.app.registry import TaskRegistry

NOT_COPIED = frozenset({
    "__dict__", "__weakref__", "__slots__", "__init_subclass__", "_unchecked_run", "_orig_run", "__bound__",
})  # fmt: skip
"""Of a class that is registered: what belongs to it alone."""


class Registry(TaskRegistry):
    """Celery's registry of task types."""

    def __setitem__(self, name: str, task: Any) -> None:
        super().__setitem__(name, adopted(name, task))


class _Adopted:
    """Comes first, so that a class which notes its subclasses hears nothing of ours."""

    def __init_subclass__(cls) -> None:
        """Do nothing."""


def adopted(name: str, task: Any) -> Any:
    """Return ``task``, registered as ``name``, with a class that is ours and known by that name."""
    if not isinstance(task, celery.Task):
        return task
    # Only here: it brings in what runs and submits tasks, and this module is part of every app.
    from taskapp.app.task import Task

    if not isinstance(task, Task):
        task.__class__ = _subclass(name, type(task), (Task,))
    elif type(task).name is None:
        type(task).name = name
    elif type(task).name != name:  # a second instance of one class
        task.__class__ = _subclass(name, type(task), ())
    # Celery's automatic retry neither awaits nor tells two runs apart; ``Task.bind`` puts ours in its place.
    if vars(task).pop("_orig_run", None) is not None:
        del vars(task)["run"]
    return task


def _subclass(name: str, given: type, more: tuple[type, ...]) -> Any:
    body = {key: value for key, value in vars(given).items() if key not in NOT_COPIED} | {"name": name}
    options = {"metaclass": type(given)}
    return types.new_class(given.__name__, (_Adopted, given, *more), options, lambda namespace: namespace.update(body))
