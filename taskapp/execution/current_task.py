"""Celery's stacks of current tasks and requests, kept per context instead of per thread.

The thread of an event loop interleaves many tasks. A context variable follows each of them, even into
``asyncio.gather``, ``TaskGroup`` and ``to_thread``; on plain threads it acts like a thread-local.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from celery.utils.threads import LocalStack

from taskapp.celery_internals import current_tasks

_LocalStack: Any = LocalStack


class ContextStack(_LocalStack):
    """Celery's ``LocalStack``, stored in a context variable as a tuple, because copied contexts share it."""

    def __init__(self) -> None:
        super().__init__()
        self.start_in_context()

    def start_in_context(self) -> None:
        """Begin with no items, in every context."""
        self._items: ContextVar[tuple[Any, ...]] = ContextVar("taskapp_stack", default=())

    def push(self, obj: Any) -> tuple[Any, ...]:
        """Push ``obj`` in this context; return all items, the topmost last."""
        items = (*self._items.get(), obj)
        self._items.set(items)
        return items

    def pop(self) -> Any:
        """Remove and return the topmost item; ``None`` if the stack is empty."""
        items = self._items.get()
        self._items.set(items[:-1])
        return items[-1] if items else None

    @property
    def stack(self) -> tuple[Any, ...]:
        """All items, the topmost last."""
        return self._items.get()

    @property
    def top(self) -> Any:
        """The topmost item, or ``None``."""
        items = self._items.get()
        return items[-1] if items else None

    def __len__(self) -> int:
        return len(self._items.get())

    def __release_local__(self) -> None:
        self._items.set(())


def follow_contexts() -> None:
    """Make ``current_task`` follow contexts.

    This changes the class of Celery's stack object: its modules import it by name, so it cannot be replaced.
    """
    if not isinstance(current_tasks, ContextStack):
        current_tasks.__class__ = ContextStack
        current_tasks.start_in_context()
