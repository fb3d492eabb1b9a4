"""Text of errors, whatever their own code does: a ``__repr__``, ``__str__`` or property of an error may raise anything.

``SystemExit``, ``GeneratorExit`` and ``KeyboardInterrupt`` raised by such code are caught and end nothing.
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
"""Maximum length of a class name in characters."""


class BrokenError(TaskappError):
    """Replaces an error that cannot be read because its ``__repr__``, ``__str__`` or attributes raise."""

    def __str__(self) -> str:
        return f"{self.args[0]} was raised, and reading that error raised {self.args[1]}; fix its class"


def sound(error: BaseException) -> BaseException:
    """Return ``error`` if Celery, ``logging`` and taskapp can read it; else a ``BrokenError`` that names it.

    If only its ``__cause__`` or ``__context__`` is broken, both are cleared. A ``__str__`` or ``__repr__`` that raises
    an ``Exception`` is fine: Celery and ``in_words`` do without the text.
    """
    if _problem_of(error) is None:
        return error
    try:
        BaseException.__setattr__(error, "__cause__", None)
        BaseException.__setattr__(error, "__context__", None)
    except BaseException:  # noqa: BLE001, S110 - raised by the class of the error
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
    return _text_or_class(str, value)


def shown(value: object) -> str:
    """Return ``repr(value)``, or the name of its class in angle brackets if that raises."""
    return _text_or_class(repr, value)


def name_of(value: object) -> str:
    """Return the qualified class name of ``value`` with its module, at most ``NAME_MOST`` characters."""
    kind = type(value)
    try:
        module, name = kind.__module__, kind.__qualname__
        return (name if module == "builtins" else f"{module}.{name}")[:NAME_MOST]
    except BaseException:  # noqa: BLE001 - raised by the metaclass
        return "an error"


def _text_or_class(convert: Callable[[object], str], value: object) -> str:
    try:
        return convert(value)
    except BaseException:  # noqa: BLE001 - see the module
        return f"<{name_of(value)}>"


def _problem_of(error: BaseException) -> BaseException | None:
    """Return the exception raised by reading ``error`` as Celery, ``logging`` and taskapp do; ``None`` if it reads."""
    try:
        _read(error)
    except BaseException as problem:  # noqa: BLE001 - see the module
        return problem
    return None


def _read(error: Any) -> None:
    if error.__class__ is not type(error) or not isinstance(error.args, tuple):
        raise TypeError("its __class__ is not its type, or its args are not a tuple")
    for convert in (repr, str):
        with suppress(Exception):  # readers do without the text
            convert(error)
    format_exception(type(error), error, error.__traceback__)
