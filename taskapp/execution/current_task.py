"""Celery's stacks of current tasks and requests, kept per context instead of per thread.

The thread of an event loop interleaves many tasks. A context variable follows each of them, even into
``asyncio.gather``, ``TaskGroup`` and ``to_thread``; on plain threads it acts like a thread-local.

In a taskapp worker, Celery's own stack of current tasks becomes such a stack. In other processes, that stack serves
every Celery app and stays unchanged: loops that run eager coroutines push their task onto it for each turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context, ContextVar
from types import CoroutineType
from typing import Any

from celery.utils.threads import LocalStack

from taskapp.celery_internals import current_tasks

_LocalStack: Any = LocalStack
Tasks = tuple[Any, ...]
_NOTHING = nullcontext()
_carried: ContextVar[Tasks] = ContextVar("taskapp_carried_tasks", default=())


class ContextStack(_LocalStack):
    """Celery's ``LocalStack``, stored in a context variable as a tuple, because copied contexts share it."""

    def __init__(self) -> None:
        super().__init__()
        self.start_in_context()

    def start_in_context(self) -> None:
        """Start empty in every context."""
        self._items: ContextVar[Tasks] = ContextVar("taskapp_stack", default=())

    def push(self, obj: Any) -> Tasks:
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
    def stack(self) -> Tasks:
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
    """Make ``current_task`` follow contexts; for a process that runs a taskapp worker.

    This changes the class of Celery's stack object: its modules import it by name, so it cannot be replaced.
    """
    if not isinstance(current_tasks, ContextStack):
        current_tasks.__class__ = ContextStack
        current_tasks.start_in_context()


# --- outside workers ------------------------------------------------------------------------------


def carrying() -> AbstractContextManager[None]:
    """Return a context manager in which started coroutines keep the current tasks on a loop from ``following``."""
    return _NOTHING if isinstance(current_tasks, ContextStack) else _carrying()


@contextmanager
def _carrying() -> Iterator[None]:
    token = _carried.set(tuple(current_tasks.stack))
    try:
        yield
    finally:
        _carried.reset(token)


def following(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """Prepare and return ``loop``, so that ``current_task`` is right in coroutines from ``carrying`` and in threads."""
    if not isinstance(current_tasks, ContextStack):
        loop.set_task_factory(_following)
        loop.set_default_executor(_Threads(thread_name_prefix="asyncio"))
    return loop


def _following(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    context: Context | None = options.get("context")
    tasks = _carried.get() if context is None else context.get(_carried, ())
    if tasks and isinstance(coroutine, CoroutineType):
        coroutine = _awaited(_Turns(coroutine, tasks))
    return asyncio.Task(coroutine, loop=loop, **options)


async def _awaited(turns: _Turns) -> Any:
    return await turns


class _Turns:
    """Awaits a coroutine, with ``tasks`` as the current ones during each of its turns."""

    __slots__ = ("_coroutine", "_tasks")

    def __init__(self, coroutine: Any, tasks: Tasks) -> None:
        self._coroutine, self._tasks = coroutine, tasks

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        resume: Callable[..., Any] = steps.send
        value: Any = None
        try:
            while True:
                waited_for = _call_with(self._tasks, resume, value)
                try:
                    resume, value = steps.send, (yield waited_for)
                except BaseException as error:  # noqa: BLE001 - belongs to the coroutine
                    resume, value = steps.throw, error
        except StopIteration as end:
            return end.value


class _Threads(ThreadPoolExecutor):
    """The threads of a loop, used by ``to_thread`` and ``run_in_executor``; they keep the current tasks."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        return super().submit(_call_with, _carried.get(), call, *args, **options)


def _call_with(tasks: Tasks, call: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    for task in tasks:
        current_tasks.push(task)
    try:
        return call(*args, **options)
    finally:
        for _ in tasks:
            current_tasks.pop()
