"""Finds the app under test, and reads the options of a test's markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from celery.app.utils import find_app as _find_app

from taskapp.errors.testing import BadMark, NoAppToTest
from taskapp.testing.internals import current_app_of_thread


def find_app(named: Any) -> Any:
    """Return the app that ``named`` is or names, as for ``celery -A``; the current one if it is empty.

    Raises:
        NoAppToTest: There is none.
    """
    if not named:
        current, default = current_app_of_thread()
        found = current or default
        if found is None or found.main == "default":
            raise NoAppToTest("no app has been made yet")
        return found
    if not isinstance(named, str):
        return named
    try:
        return _find_app(named)
    except (ImportError, AttributeError) as error:
        raise NoAppToTest(f"{named!r} cannot be imported: {error}") from error


def options_of(marks: Iterable[Any], known: Sequence[str]) -> dict[str, Any]:
    """Return the options of markers, those of the nearest first.

    Raises:
        BadMark: One is unknown.
    """
    options: dict[str, Any] = {}
    for mark in marks:
        for name, value in mark.kwargs.items():
            if name not in known:
                raise BadMark(name, known)
            options.setdefault(name, value)
        if mark.args:
            raise BadMark(repr(mark.args[0]), known)
    return options
