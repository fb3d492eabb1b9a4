"""Celery's signatures, chains, groups and chords, which coroutines can submit; their types are in ``async_canvas.pyi``.

Whatever is made of them with ``|`` and ``clone`` can be submitted by coroutines, too.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import celery as stock

from taskapp.client.deadlines import absolute
from taskapp.client.limits.duplicates import known_as
from taskapp.client.limits.of_call import declared_by

PUT_TOGETHER_AT_ONCE = 200
"""Number of tasks of a canvas that the event loop prepares itself: a few milliseconds."""

_Chain: Any = stock.Signature.TYPES["chain"]
"""The class of chains: ``celery.chain`` only makes them."""


class Signature(stock.Signature):
    """Celery's signature, which coroutines can submit."""

    _own_result: Any = None
    """The result that ``freeze`` has returned, if it may become that of a task with the same unique key."""

    def freeze(self, *args: Any, **options: Any) -> Any:
        """Set its id, like Celery; return its result."""
        return self._kept(super().freeze(*args, **options))

    def _kept(self, result: Any) -> Any:
        known_task = getattr(self.app, "known_task", None)  # an app of stock Celery has none
        limits = declared_by(known_task(self["task"])) if known_task is not None else None
        if (limits is not None and limits.is_unique) or "unique_key" in self["options"]:
            self._own_result = result
        return result

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Submit like Celery; a deadline in seconds counts from now, for all parts of a canvas."""
        if "deadline" in options:
            options = absolute(self["task"], options, self.app.now())
        if self._own_result is None:
            return super().apply_async(*args, **options)
        with known_as(self._own_result):
            return super().apply_async(*args, **options)

    async def aapply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Submit like ``apply_async`` without blocking the event loop, and return once all its tasks are queued.

        If it is cancelled, its tasks may or may not be queued. A thread submits a canvas of more than 200 tasks, and
        one for an app of stock Celery.

        Raises:
            TaskappError: As for ``apply_async``.
        """
        submit = partial(self.apply_async, args, kwargs, **options)
        submitter = getattr(self.app, "submitter", None)
        if submitter is None or (not submitter.is_eager and is_large(self)):
            return await asyncio.to_thread(submit)
        return await submitter.awaiting(self["task"], submit)

    async def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """Submit from a coroutine, see ``aapply_async``."""
        return await self.aapply_async(args, kwargs)

    def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Return a copy with additional arguments and options."""
        return with_coroutines(super().clone(args, kwargs, **options))

    def __or__(self, other: Any) -> Any:
        return with_coroutines(super().__or__(other))


class chain(Signature, _Chain):  # noqa: N801 - Celery's name
    """Celery's chain, which coroutines can submit."""

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        """Return what ``celery.chain`` makes of ``tasks``: a chain, or a chord, a group or the only task."""
        return super().__new__(cls) if options else with_coroutines(stock.chain(*tasks))

    def __init__(self, *tasks: Any, **options: Any) -> None:
        if not self:  # else ``celery.chain`` has made it
            super().__init__(*tasks, **options)


class group(Signature, stock.group):  # noqa: N801 - the same
    """Celery's group, which coroutines can submit."""


class chord(Signature, stock.chord):  # noqa: N801 - the same
    """Celery's chord, which coroutines can submit."""


KINDS: dict[type, type] = {
    stock.Signature: Signature, stock.chain: chain, _Chain: chain, stock.group: group, stock.chord: chord
}  # fmt: skip
"""Celery's classes, and the ones whose instances coroutines can submit."""


def with_coroutines(made: Any) -> Any:
    """Return ``made``; if it is a canvas of Celery's, coroutines can submit it from now on."""
    if kind := KINDS.get(type(made)):
        made.__class__ = kind
    return made


def signature(varies: Any, *args: Any, **options: Any) -> Any:
    """Create a signature, like Celery: of a task's name, or of a dict."""
    return with_coroutines(stock.signature(varies, *args, **options))


def is_large(canvas: Any, most: int = PUT_TOGETHER_AT_ONCE) -> bool:
    """Return whether ``canvas`` has more than ``most`` tasks; reads at most that many of a generator."""
    return _count(canvas, most) > most


def _count(canvas: Any, most: int) -> int:
    """Count the tasks of ``canvas``, up to a few more than ``most``."""
    kwargs = canvas.get("kwargs") or {}
    if canvas.get("subtask_type") == "chord":
        members, count = kwargs.get("header"), _count(kwargs.get("body") or {}, most)
    elif canvas.get("subtask_type") in ("chain", "group"):
        members, count = kwargs.get("tasks"), 0
    else:
        return 1
    if isinstance(members, dict):
        return count + _count(members, most)
    if not isinstance(members, list | tuple):
        return most + 1
    for member in members:
        count += _count(member, most)
        if count > most:
            break
    return count
