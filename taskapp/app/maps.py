"""``map``, ``starmap`` and ``chunks`` for ``async def`` tasks: Celery's own would not await them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import iscoroutine
from typing import Any

from celery.canvas import signature

from taskapp.execution.coroutines import run_to_end

_signature: Any = signature  # the stubs are incomplete


def register_maps(app: Any) -> None:
    """Replace Celery's tasks by ones that run coroutines to completion, one after the other."""

    def xmap(task: Any, it: Iterable[Any]) -> list[Any]:
        task = _signature(task, app=app).type
        return [_ended(task(item)) for item in it]

    def xstarmap(task: Any, it: Iterable[Any]) -> list[Any]:
        task = _signature(task, app=app).type
        return [_ended(task(*items)) for items in it]

    for name, function in (("celery.map", xmap), ("celery.starmap", xstarmap)):
        app.tasks.pop(name, None)
        app.task(name=name, shared=False, lazy=False)(function)


def _ended(returned: Any) -> Any:
    return run_to_end(returned) if iscoroutine(returned) else returned
