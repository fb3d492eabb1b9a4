"""Hides arguments of tasks wherever they are shown, according to ``masks`` and ``sensitive`` of the task type.

Keyword arguments, positional ones by their parameter names, and keys at any depth inside them are
masked by name. The hidden values are also removed from texts that may quote them: errors, tracebacks, results.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from threading import Lock
from traceback import format_exception
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)

MASK = "***"
DEPTH_MOST = 50
"""Nesting depth below which everything is masked."""
NAME_MOST = 100
"""Maximum length of the name of an error."""
ERROR_NAME = re.compile(r"([A-Za-z_][\w.]*): ")
PIECE = 8
"""Number of characters of a masked value that count as a quotation: errors and results may shorten it."""
VALUES_MOST = 1_000
"""Maximum number of masked values in a task to search for quotations; with more, errors and results are hidden."""
PIECES_MOST = 1 << 17
COMPARED_MOST = 1 << 23
"""Maximum number of characters to split into pieces, and to compare, for quotations in one text: a few milliseconds."""


class Masked(NamedTuple):
    """The arguments of one task in the form in which they may be shown."""

    args: Any
    kwargs: Any
    secrets: tuple[str, ...] | None
    """Values that must not be shown anywhere, longest first; ``None``: unknown."""

    def strike(self, text: str) -> str:
        """Return ``text`` with the secrets masked; all of it is masked if it quotes a part of one.

        If the secrets are unknown, only the name of an error is kept.
        """
        if self.secrets is None or not self._is_little(text):
            name = ERROR_NAME.match(text)
            return MASK if text and not (name and self._may_be_shown(name[1])) else name[1] if name else ""
        for secret in self.secrets:
            text = text.replace(secret, MASK)
        pieces = {text[at : at + PIECE] for at in range(len(text) - PIECE + 1)}
        is_quoted = any(
            secret[at : at + PIECE] in pieces for secret in self.secrets for at in range(len(secret) - PIECE + 1)
        )
        return MASK if is_quoted else text

    def _is_little(self, text: str) -> bool:
        """Return whether quotations in ``text`` can be found quickly enough."""
        secrets = self.secrets or ()
        return len(text) * len(secrets) <= COMPARED_MOST and len(text) + sum(map(len, secrets)) <= PIECES_MOST

    def _may_be_shown(self, name: str) -> bool:
        return len(name) <= NAME_MOST and not any(secret in name for secret in self.secrets or ())


HIDDEN = Masked(MASK, MASK, None)
_importing = Lock()
_has_imported: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""By app: whether all its modules could be imported."""


def redact(app: Any, name: str, read: Callable[[], tuple[Any, Any]]) -> Masked | None:
    """Return the masked arguments of a task of type ``name``; ``None``: all of them may be shown.

    Arguments of an unknown type may be shown if all modules of ``app`` could be imported; otherwise they are hidden.

    Args:
        app: The Celery application.
        name: Name of the task type.
        read: Returns args and kwargs. If it raises, or returns anything but a list and a dict, they are hidden.
    """
    task = app.tasks.get(name)
    if task is None and name:
        # Unlike a node, a process that shows tasks has not imported their modules.
        has_all = _imports_all(app)
        task = app.tasks.get(name)
        if task is None and not has_all:
            return HIDDEN
    if not hides(task):
        return None
    if getattr(task, "sensitive", False):
        return HIDDEN
    try:
        args, kwargs = read()
        if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
            return HIDDEN
        return masked(task, args, kwargs)
    except Exception:  # noqa: BLE001 - an unreadable message, a result of another program
        return HIDDEN


def seen_fields(app: Any, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``fields``, which describe how tasks of type ``name`` are sent, with masked ``args`` and ``kwargs``."""
    given = [each for each in ("args", "kwargs") if each in fields]
    seen = redact(app, name, lambda: (fields.get("args", ()), fields.get("kwargs", {}))) if given else None
    return dict(fields) if seen is None else {**fields, **{each: getattr(seen, each) for each in given}}


def hides(task: Any) -> bool:
    """Return whether tasks of this type have anything to hide."""
    return bool(getattr(task, "sensitive", False) or getattr(task, "masks", ()))


def seen_error(task: Any, args: Any, kwargs: Any, error: BaseException) -> tuple[str, str] | None:
    """Return message and traceback of a run's ``error`` with secrets masked; ``None``: both may be shown.

    For a ``sensitive`` type both are masked entirely.
    """
    if not hides(task):
        return None
    try:
        seen = HIDDEN if getattr(task, "sensitive", False) else masked(task, args, kwargs)
        texts = str(error), "".join(format_exception(error))
    except Exception:  # noqa: BLE001 - unreadable arguments, an error without a text
        return MASK, MASK
    if seen.secrets is None:
        return MASK, MASK
    message, trace = map(seen.strike, texts)
    return message, trace


def _imports_all(app: Any) -> bool:
    """Import the modules of ``app``, once; return whether that succeeded."""
    with _importing:
        if app not in _has_imported:
            try:
                app.loader.import_default_modules()
                _has_imported[app] = True
            except Exception as error:  # noqa: BLE001 - a user's module may raise anything
                _has_imported[app] = False
                logger.warning(
                    "some task types are unknown here, and their arguments are not shown: %s; see TASKAPP_INCLUDE",
                    error, extra={"action": "types_unknown"},
                )  # fmt: skip
        return _has_imported[app]


def masked(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Masked:
    """Return the arguments of a task of type ``task`` with the values that its ``masks`` name hidden."""
    names, found = frozenset(task.masks), set[str]()
    given = _names(task._unchecked_run, is_method=task._is_method)
    shown = [
        _hidden(value, found) if name in names else _seen(value, names, found)
        for name, value in zip([*given, *[""] * len(args)], args, strict=False)
    ]
    named = _seen(dict(kwargs), names, found)
    is_known = len(found) <= VALUES_MOST
    return Masked(tuple(shown), named, tuple(sorted(_forms(found), key=len, reverse=True)) if is_known else None)


def _forms(values: set[str]) -> set[str]:
    """Return ``values`` as they are and as they appear inside a ``repr`` or JSON."""
    return {form for value in values for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1])}


@cache
def _names(run: Callable[..., Any], *, is_method: bool) -> tuple[str, ...]:
    """Return the names of the parameters that can be passed by position."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(run).parameters.values()
    return tuple(each.name for each in parameters if each.kind in kinds)[1 if is_method else 0 :]


def _seen(value: Any, names: frozenset[str], found: set[str], depth: int = 0) -> Any:
    """Return ``value`` with everything under one of ``names`` masked, and add the masked values to ``found``."""
    if depth > DEPTH_MOST:
        return _hidden(value, found)
    if isinstance(value, Mapping):
        return {
            key: _hidden(inside, found) if key in names else _seen(inside, names, found, depth + 1)
            for key, inside in value.items()
        }
    if isinstance(value, list | tuple):
        return [_seen(inside, names, found, depth + 1) for inside in value]
    return value


def _hidden(value: Any, found: set[str]) -> str:
    for leaf in _leaves(value):
        if len(found) > VALUES_MOST:
            break
        found.add(leaf if isinstance(leaf, str) else str(leaf))
    found.discard("")
    return MASK


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the leaves of ``value``; without recursion, because it may be deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif one is not None and not isinstance(one, bool):
            yield one
