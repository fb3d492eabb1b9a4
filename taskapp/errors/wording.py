"""Text of errors, whatever their own code does: a ``__repr__``, ``__str__`` or property of an error may raise anything.

``SystemExit``, ``GeneratorExit`` and ``KeyboardInterrupt`` raised by such code are caught and end nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from traceback import format_exception
from types import WrapperDescriptorType
from typing import Any

from taskapp.errors import TaskappError

_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__
"""Reads the slot itself, past a property of that name."""
TEXT_MOST = 16 << 20
"""Maximum number of characters that an error, its traceback and its causes may take."""
SLOW_SECONDS = 0.5
"""How long the code of an error may take to make its text."""
SLOW_TEXT_MOST = 1_000
"""Number of characters kept of a text that took longer."""
PLAIN = (str, bytes, int, float, bool, type(None))
NAME_MOST = 200
"""Maximum length of a class name in characters."""


class BrokenError(TaskappError):
    """Replaces an error that cannot be read because its ``__repr__``, ``__str__`` or attributes raise."""

    def __str__(self) -> str:
        return f"{self.args[0]} was raised, and reading that error raised {self.args[1]}; fix its class"


class HeavyError(TaskappError):
    """Replaces an error whose text is too long or takes too long to make, because that text is made many times."""

    def __str__(self) -> str:
        return "{} was raised, {}; fix its class".format(*self.args)


def sound(error: BaseException) -> BaseException:
    """Return ``error`` if Celery, ``logging`` and taskapp can read it; else a stand-in that names it.

    The stand-in is a ``BrokenError``, or a ``HeavyError`` if reading it yields more than ``TEXT_MOST`` characters or
    its own code takes longer than ``SLOW_SECONDS``. If only its ``__cause__`` or ``__context__`` is at fault, both are
    cleared. A ``__str__`` or ``__repr__`` that raises an ``Exception`` is fine: Celery and ``in_words`` do without.
    """
    problem = _problem_of(error)
    if problem is not None and not isinstance(problem, _TooMuch):
        try:
            BaseException.__setattr__(error, "__cause__", None)
            BaseException.__setattr__(error, "__context__", None)
        except BaseException:  # noqa: BLE001, S110 - raised by the class of the error
            pass
        problem = _problem_of(error)
    if problem is None:
        return error
    broken: TaskappError
    if isinstance(problem, _TooMuch):
        broken = HeavyError(name_of(error), problem.args[0])
    else:
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


class _TooMuch(Exception):
    """The error's own text is too long, or took too long to make."""


def _read(error: Any) -> None:
    if error.__class__ is not type(error) or not isinstance(error.args, tuple):
        raise TypeError("its __class__ is not its type, or its args are not a tuple")
    has_own_code = not _is_made_by_python(error)
    for convert in (str, repr):
        started_at = monotonic()
        try:
            text = convert(error)
        except Exception:  # noqa: BLE001 - readers do without the text
            text = ""
        _check(text, monotonic() - started_at if has_own_code else 0.0)
    has_others = error.__cause__ is not None or error.__context__ is not None
    started_at = monotonic()
    lines = format_exception(type(error), error, error.__traceback__)
    if sum(map(len, lines)) > TEXT_MOST or (has_others and monotonic() - started_at > SLOW_SECONDS):
        raise ValueError("the text of its causes is too much")


def _is_made_by_python(error: BaseException) -> bool:
    """Return whether no code but Python's own makes the text; how long that takes depends on the machine alone."""
    kind = type(error)
    own = isinstance(kind.__str__, WrapperDescriptorType) and isinstance(kind.__repr__, WrapperDescriptorType)
    return own and all(type(arg) in PLAIN for arg in error.args)


def _check(text: str, seconds: float) -> None:
    if len(text) > TEXT_MOST:
        raise _TooMuch(f"whose text takes {len(text):,} characters, more than {TEXT_MOST:,}")
    if seconds > SLOW_SECONDS:
        raise _TooMuch(f"whose text took {seconds:.1f} s to make: {text[:SLOW_TEXT_MOST]!r}")
