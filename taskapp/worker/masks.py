"""What of a task's arguments nobody shall read in its history: ``masks`` and ``sensitive`` of its type.

Named arguments, positional ones by the function's own names, and keys at any depth inside them are
masked by name. What stood there is struck out of texts that may quote it: errors, tracebacks, results.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from celery.utils.saferepr import saferepr

MASK = "***"
DEPTH_MOST = 50
"""Deeper inside, everything is masked."""
TEXT_MOST = 1_024
PIECE = 8
"""So many characters of what is masked, elsewhere, are a quotation of it: shortened, as errors and results are."""


class Masked(NamedTuple):
    """The arguments of one task as they may be shown."""

    args: str
    kwargs: str
    secrets: tuple[str, ...]
    """What may stand nowhere, the longest first."""

    def strike(self, text: str) -> str:
        """Return ``text`` without what may stand nowhere; if it quotes a part of that, nothing of it."""
        for secret in self.secrets:
            text = text.replace(secret, MASK)
        pieces = {text[at : at + PIECE] for at in range(len(text) - PIECE + 1)}
        is_quoted = any(
            secret[at : at + PIECE] in pieces for secret in self.secrets for at in range(len(secret) - PIECE + 1)
        )
        return MASK if is_quoted else text


def masked(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Masked:
    """Return the arguments of a task of the type ``task`` with what its ``masks`` name put out of sight."""
    names, found = frozenset(task.masks), set[str]()
    given = _names(task._unchecked_run, is_method=task._is_method)
    shown = [
        _hidden(value, found) if name in names else _seen(value, names, found)
        for name, value in zip([*given, *[""] * len(args)], args, strict=False)
    ]
    text = saferepr(tuple(shown), TEXT_MOST)
    named = saferepr(_seen(dict(kwargs), names, found), TEXT_MOST)
    return Masked(text, named, tuple(sorted(found, key=len, reverse=True)))


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
        # As it is, and as it stands inside the text of something else.
        found.update({str(leaf), repr(leaf)[1:-1], json.dumps(leaf)[1:-1]} if isinstance(leaf, str) else {str(leaf)})
    found.discard("")
    return MASK


def _leaves(value: Any) -> Iterator[Any]:
    """Yield what ``value`` holds, without recursion: it may be deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif one is not None and not isinstance(one, bool):
            yield one
