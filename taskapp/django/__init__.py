"""taskapp in a Django project: add ``taskapp.django`` to ``INSTALLED_APPS``.

``outbox`` submits tasks in the current transaction; ``models`` has its table; ``manage.py taskapp_outbox`` relays it.
``TaskBackend`` is a backend for Django's own tasks; ``admin`` has pages for tasks, dead letters and schedules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskapp.django.backend import TaskBackend

__all__ = ["TaskBackend"]


def __getattr__(name: str) -> Any:
    """Import the backend on first use: Django imports this package before its apps are ready."""
    if name != "TaskBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from taskapp.django.backend import TaskBackend

    return TaskBackend
