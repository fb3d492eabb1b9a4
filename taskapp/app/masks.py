"""What of a task's arguments nobody shall read where they are shown: ``masks`` and ``sensitive`` of its type.

Named arguments, positional ones by the function's own names, and keys at any depth inside them are
masked by name. What stood there is struck out of texts that may quote it: errors, tracebacks, results.
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
"""Deeper inside, everything is masked."""
NAME_MOST = 100
"""Characters in the name of an error."""
ERROR_NAME = re.compile(r"([A-Za-z_][\w.]*): ")
PIECE = 8
"""So many characters of what is masked, elsewhere, are a quotation of it: shortened, as errors and results are."""
VALUES_MOST = 1_000
"""Of more masked values in one task nobody looks where they are quoted: its errors and results are hidden whole."""
PIECES_MOST = 1 << 17
COMPARED_MOST = 1 << 23
"""How many characters are cut to pieces, and compared, to find quotations in one text: some milliseconds' work."""


class Masked(NamedTuple):
    """The arguments of one task as they may be shown."""

    args: Any
    kwargs: Any
    secrets: tuple[str, ...] | None
    """What may stand nowhere, the longest first; ``None``: nobody can say what."""

    def strike(self, text: str) -> str:
        """Return ``text`` without what may stand nowhere; if it quotes a part of that, nothing of it.

        If nobody can say what may stand nowhere, the name of an error is all that is left of one.
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
        """Return whether quotations in ``text`` are found without holding up others."""
        secrets = self.secrets or ()
        return len(text) * len(secrets) <= COMPARED_MOST and len(text) + sum(map(len, secrets)) <= PIECES_MOST

    def _may_be_shown(self, name: str) -> bool:
        return len(name) <= NAME_MOST and not any(secret in name for secret in self.secrets or ())


HIDDEN = Masked(MASK, MASK, None)
_importing = Lock()
_has_imported: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""By app: whether all of its modules could be."""


def redact(app: Any, name: str, read: Callable[[], tuple[Any, Any]]) -> Masked | None:
    """Return what may be seen of a task of the type ``name``; ``None``: all of it.

    Of a type that no module has which ``app`` imports, all; nothing of it if one of them cannot be imported.

    Args:
        app: The Celery application.
        name: The name of the type.
        read: Returns the arguments and the named ones; what it raises hides them, as does what is neither a list nor
            a dict.
    """
    task = app.tasks.get(name)
    if task is None and name:
        # What shows tasks has not imported the modules that have them, as a node does.
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
    except Exception:  # noqa: BLE001 - a message nobody can read, a result of another program
        return HIDDEN


def seen_fields(app: Any, name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``said``, what sends tasks of the type ``name``, with its ``args`` and ``kwargs`` as they may be seen."""
    given = [each for each in ("args", "kwargs") if each in said]
    seen = redact(app, name, lambda: (said.get("args", ()), said.get("kwargs", {}))) if given else None
    return dict(said) if seen is None else {**said, **{each: getattr(seen, each) for each in given}}


def hides(task: Any) -> bool:
    """Say whether something of tasks of this type is to be kept out of sight."""
    return bool(getattr(task, "sensitive", False) or getattr(task, "masks", ()))


def seen_error(task: Any, args: Any, kwargs: Any, error: BaseException) -> tuple[str, str] | None:
    """Return message and traceback of a run's ``error`` as they may be seen; ``None``: as they are.

    Of a ``sensitive`` type neither may.
    """
    if not hides(task):
        return None
    try:
        seen = HIDDEN if getattr(task, "sensitive", False) else masked(task, args, kwargs)
        texts = str(error), "".join(format_exception(error))
    except Exception:  # noqa: BLE001 - arguments nobody can read, an error without a text
        return MASK, MASK
    if seen.secrets is None:
        return MASK, MASK
    message, trace = map(seen.strike, texts)
    return message, trace


def _imports_all(app: Any) -> bool:
    """Import the modules of ``app``, once; say whether that could be done."""
    with _importing:
        if app not in _has_imported:
            try:
                app.loader.import_default_modules()
                _has_imported[app] = True
            except Exception as error:  # noqa: BLE001 - a module of the user's: whatever it raises
                _has_imported[app] = False
                logger.warning(
                    "not every task type is known here: %s; arguments of the others are not shown; see TASKAPP_INCLUDE",
                    error, extra={"action": "types_unknown"},
                )  # fmt: skip
        return _has_imported[app]


def masked(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Masked:
    """Return the arguments of a task of the type ``task`` with what its ``masks`` name put out of sight."""
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
    """Return ``values`` as they are, and as they stand inside the text of something else."""
    return {form for value in values for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1])}


@cache
def _names(run: Callable[..., Any], *, is_method: bool) -> tuple[str, ...]:
    """Return the names of what is passed by position."""
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(run).parameters.values()
    return tuple(each.name for each in parameters if each.kind in kinds)[1 if is_method else 0 :]


def _seen(value: Any, names: frozenset[str], found: set[str], depth: int = 0) -> Any:
    """Return ``value`` with what stands in it under one of ``names`` masked, and note that in ``found``."""
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
    """Yield what ``value`` holds, without recursion: it may be deep."""
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
