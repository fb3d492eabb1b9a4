"""Errors in words, whatever their own code does: a ``__repr__``, ``__str__`` or property of one may raise anything.

``SystemExit``, ``GeneratorExit`` and ``KeyboardInterrupt`` of such code are the error's own, and end nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from traceback import format_exception
from typing import Any

from taskapp.errors import TaskappError

_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__
"""Reads the slot itself, past a property of that name."""
NAME_MOST = 200
"""Characters of the name of a class."""


class BrokenError(TaskappError):
    """Takes the place of an error that cannot be read: its own ``__repr__``, ``__str__`` or attributes raise."""

    def __str__(self) -> str:
        return f"{self.args[0]} was raised, and reading that error raised {self.args[1]}; correct its class"


def sound(error: BaseException) -> BaseException:
    """Return ``error`` if everything that reads errors can read it; else a ``BrokenError`` that names it.

    Where only the errors it came from are broken, it is cut off from them. A text that cannot be had because of an
    ``Exception`` breaks nobody: Celery and ``in_words`` do without it.
    """
    if _problem_of(error) is None:
        return error
    try:
        BaseException.__setattr__(error, "__cause__", None)
        BaseException.__setattr__(error, "__context__", None)
    except BaseException:  # noqa: BLE001, S110 - of an error, by its own class
        pass
    problem = _problem_of(error)
    if problem is None:
        return error
    broken = BrokenError(name_of(error), name_of(problem))
    broken.__suppress_context__ = True
    return broken.with_traceback(_traceback_of(error))


def in_words(error: object) -> str:
    """Return ``Type: text``."""
    return f"{name_of(error).rpartition('.')[2]}: {text_of(error)}"


def text_of(value: object) -> str:
    """Return ``str(value)``, or the name of its class in angle brackets if that raises."""
    return _said(str, value)


def shown(value: object) -> str:
    """Return ``repr(value)``, or the name of its class in angle brackets if that raises."""
    return _said(repr, value)


def name_of(value: object) -> str:
    """Return the module and the name of the class of ``value``."""
    kind = type(value)
    try:
        module, name = kind.__module__, kind.__qualname__
        return (name if module == "builtins" else f"{module}.{name}")[:NAME_MOST]
    except BaseException:  # noqa: BLE001 - of a class, by its own metaclass
        return "an error"


def _said(say: Callable[[object], str], value: object) -> str:
    try:
        return say(value)
    except BaseException:  # noqa: BLE001 - see the module
        return f"<{name_of(value)}>"


def _problem_of(error: BaseException) -> BaseException | None:
    """Return what reading ``error`` in the ways of Celery, ``logging`` and our own raises."""
    try:
        _read(error)
    except BaseException as problem:  # noqa: BLE001 - see the module
        return problem
    return None


def _read(error: Any) -> None:
    if error.__class__ is not type(error) or not isinstance(error.args, tuple):
        raise TypeError("it says it is of another class, or its args are no tuple")
    for say in (repr, str):
        with suppress(Exception):  # told without it
            say(error)
    format_exception(type(error), error, error.__traceback__)
