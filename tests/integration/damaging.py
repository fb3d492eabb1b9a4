"""Task types that overwrite one field of their own ``self.request``, with a value that does not belong there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import shared_task
from celery.app.task import Context

OPTIONS = ("ignore_result",)
"""What a task may well change: then there is no result."""
FIELDS = (
    *(
        name for name, default in sorted(vars(Context).items())
        if name[0] != "_" and name not in OPTIONS and not callable(default)
    ),
    "argsrepr", "task", "_children", "everything",
)  # fmt: skip
VALUES: dict[str, Callable[[], Any]] = {
    "none": lambda: None, "number": lambda: 7, "text": lambda: "x", "list": lambda: [3], "object": object,
    "missing": object,
}  # fmt: skip
PLACES = ("def", "async", "child")


def _damage(request: Any, field: str, value: str, end: str) -> str:
    for name in FIELDS[:-1] if field == "everything" else (field,):
        if value == "missing":
            request.__dict__.pop(name, None)
        else:
            request.__dict__[name] = VALUES[value]()
    if end == "raises":
        raise ValueError("its own")
    return "done"


@shared_task(name="damages.def", bind=True)
def damage(self: Any, field: str, value: str, end: str) -> str:
    return _damage(self.request, field, value, end)


@shared_task(name="damages.async", bind=True)
async def damage_async(self: Any, field: str, value: str, end: str) -> str:
    return _damage(self.request, field, value, end)


@shared_task(name="damages.child", bind=True, cpu_bound=True)
def damage_in_child(self: Any, field: str, value: str, end: str) -> str:
    return _damage(self.request, field, value, end)
