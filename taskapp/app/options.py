"""Checks the options of task types: misspelt ones are refused, because Celery accepts any name."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher, get_close_matches
from inspect import getattr_static
from types import NoneType
from typing import Any

import celery

from taskapp.client.limits.options import OF_TYPES
from taskapp.client.option_checks import check_priority
from taskapp.errors.history import BadMasks, UnknownTaskOption

OPTIONS = ("cpu_bound", "typed", "keeps_failures", "masks", "sensitive", "retry_on", "retry_budget", *OF_TYPES)
STOCK = frozenset((*dir(celery.Task), *(name for name, _ in celery.Task.from_config)))
"""Attributes of Celery's class, and those it takes from the configuration. Not checked with ``hasattr``: reading
``app`` would bind the class to one app for the whole process."""
STOCK_UNDECLARED = frozenset({
    "queue", "exchange", "exchange_type", "routing_key", "delivery_mode", "compression", "immediate", "mandatory",
    "autoretry_for", "dont_autoretry_for", "retry_kwargs", "retry_backoff", "retry_backoff_max", "retry_jitter",
})  # fmt: skip
"""Options that Celery reads from a task type although its class has no such attribute."""
PLAIN = (NoneType, bool, int, float, str, tuple)
ALIKE = 0.7
"""Similarity, from 0 to 1, from which a name counts as misspelt; ``mask`` and ``masks`` have 0.89."""
LIKE_STOCK = 0.85
"""The same for options of Celery, which are many; a misspelt one is not refused."""


def check_declaration(task_type: Any, app: Any) -> None:
    """Check what ``task_type``, which is about to be bound to ``app``, declares.

    A class may have any attribute, and so may a task type whose base class declares it. What a decorator adds otherwise
    is an option. The app of a project accepts unknown ones, which its own code may read, unless they resemble one of
    taskapp's; the app that ships accepts none.

    Raises:
        UnknownTaskOption: An option is misspelt, such as ``@app.task(mask=…)``, which would show hidden values.
        BadOption: ``priority`` is not an integer from 0 to 9.
    """
    check_priority(task_type.name, task_type.priority)
    given = vars(task_type)
    if not given.get("_decorated"):
        return
    is_strict = getattr(app, "ships_task_types", False)
    for name in given:
        if not _is_known(task_type, name) and (is_strict or _resembles_one(name)):
            raise UnknownTaskOption(task_type.name, name, _options())


def misspelt_options(task_type: Any) -> Iterator[tuple[str, str]]:
    """Yield options of a decorated ``task_type`` that nobody reads, each with the option of Celery it resembles."""
    given = vars(task_type)
    for name in given if given.get("_decorated") else ():
        if not _is_known(task_type, name) and (meant := get_close_matches(name, _options(), n=1, cutoff=LIKE_STOCK)):
            yield name, meant[0]


def check_masks(task_type: Any) -> None:
    """Check ``masks`` of ``task_type``, which annotations may have set.

    Raises:
        BadMasks: They are not names.
    """
    masks = task_type.masks
    if isinstance(masks, str) or not all(isinstance(name, str) and name for name in masks):
        raise BadMasks(task_type.name, masks)


def _is_known(task_type: Any, name: str) -> bool:
    is_stock = name.startswith("_") or name in STOCK or name in STOCK_UNDECLARED
    return is_stock or name in OPTIONS or any(name in vars(base) for base in task_type.__mro__[1:])


def _resembles_one(name: str) -> bool:
    return any(SequenceMatcher(None, name, option).ratio() >= ALIKE for option in OPTIONS)


def _options() -> set[str]:
    """Return the names of all options: ours, and those of Celery that are plain values."""
    stock = {
        name
        for name in STOCK
        if isinstance(getattr_static(celery.Task, name, None), PLAIN) and not name.startswith("_")
    }
    return {*OPTIONS, *STOCK_UNDECLARED, *stock}
