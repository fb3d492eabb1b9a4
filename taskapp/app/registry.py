"""The registry of task types, which makes every type a taskapp ``Task``, whatever class it derives from.

A type whose extra is not installed is not registered. So a node does not have it, and its messages wait for a node
that does; beat and ``send_task`` send it by name; calling or submitting the type itself raises an error that names the
extra.

``celery-once``, ``AbortableTask`` and Celery's own examples derive from plain ``celery.Task``. Such a task gets a class
that derives from its own class and then from ``taskapp.app.task.Task``, so that its overrides stay in effect.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import celery
from celery.app.registry import TaskRegistry

from taskapp.errors.extras import TaskTypeMissesExtra
from taskapp.extras import missing_extra

NOT_COPIED = frozenset({
    "__dict__", "__weakref__", "__slots__", "__init_subclass__", "_unchecked_run", "_orig_run", "__bound__",
})  # fmt: skip
"""Attributes that belong to a single class and are not copied."""


class Registry(TaskRegistry):
    """Celery's registry of task types; see the module."""

    lacking: Mapping[str, TaskTypeMissesExtra] = MappingProxyType({})
    """Types that are not registered because their extra is missing: name to error."""

    def __setitem__(self, name: str, task: Any) -> None:
        task = adopted(name, task)
        if error := missing_extra(type(task)):
            self.lacking = {**self.lacking, name: error}
        else:
            super().__setitem__(name, task)


class _Adopted:
    """Comes first, so that a class that records its subclasses does not record the new ones."""

    def __init_subclass__(cls) -> None:
        """Do not call the hook of the original class."""


def adopted(name: str, task: Any) -> Any:
    """Return ``task``, registered as ``name``, with a class that derives from ``Task`` and has that name."""
    if not isinstance(task, celery.Task):
        return task
    # Imported here, because it imports the code that runs and submits tasks, and every app imports this module.
    from taskapp.app.task import Task

    if not isinstance(task, Task):
        task.__class__ = _subclass(name, type(task), (Task,))
    elif type(task).name is None:
        type(task).name = name
    elif type(task).name != name:  # a second instance of one class
        task.__class__ = _subclass(name, type(task), ())
    # Celery's automatic retry neither awaits coroutines nor distinguishes concurrent runs; ``Task.bind`` adds another.
    if vars(task).pop("_orig_run", None) is not None:
        del vars(task)["run"]
    return task


def _subclass(name: str, given: type, more: tuple[type, ...]) -> Any:
    body = {key: value for key, value in vars(given).items() if key not in NOT_COPIED} | {"name": name}
    options = {"metaclass": type(given)}
    return types.new_class(given.__name__, (_Adopted, given, *more), options, lambda namespace: namespace.update(body))
