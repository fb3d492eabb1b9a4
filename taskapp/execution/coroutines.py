"""Interrupts coroutines with a given exception, and runs them where no loop of tasks exists."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol

from billiard.common import terminate_handler_fired  # type: ignore[attr-defined]  # missing in the stubs
from celery.exceptions import SoftTimeLimitExceeded

from taskapp.background import PerProcess, in_child
from taskapp.errors.wording import sound
from taskapp.execution.current_task import carrying, following
from taskapp.execution.side_loop import is_green, is_on_a_loop, log_exit, run_beside, wait_for


class SoftTimeLimitReached(SoftTimeLimitExceeded, asyncio.CancelledError):
    """``SoftTimeLimitExceeded`` inside a coroutine.

    Also a ``CancelledError``, so that an enclosing ``TaskGroup``, ``timeout()`` or ``gather()`` treats it as a
    cancellation and cancels its children.
    """


class Stopped(BaseException):
    """Raised in a run that is stopped from outside: revoked, over its hard limit, or at the end of a drain."""


class Awaiting(Protocol):
    """The pool's side of a coroutine's run."""

    is_stopped: bool
    """Whether a cancellation comes from the pool, which reports the run's end itself."""

    def is_current(self) -> bool:
        """Return whether the loop is executing this run right now."""

    def awaitable(self, coroutine: Any) -> Any:
        """Return ``coroutine``, or an awaitable that wraps it."""


class Closed(Exception):
    """Raised when ``GeneratorExit`` leaves a task, for example from an awaited ``gather()``.

    Python interprets ``GeneratorExit`` as closing each coroutine it passes through, and a coroutine being closed must
    not await. Only the outermost caller can continue the run.

    Args:
        rest: Starts the rest of the run.
    """

    def __init__(self, rest: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        super().__init__()
        self.rest = rest


class Interruptible:
    """Awaits a coroutine; ``interrupt`` raises an exception at its innermost ``await``."""

    __slots__ = ("_coroutine", "_error", "_task")

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine
        self._error: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None

    def interrupt(self, error: BaseException) -> None:
        """Raise ``error`` where the coroutine waits; call on the loop's thread."""
        if self._task is not None:
            self._error = error
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, Any]:
        self._task = asyncio.current_task()
        steps = self._coroutine.__await__()
        resume: Callable[..., Any] = steps.send
        value: Any = None
        try:
            while True:
                waited_for = resume(value)
                try:
                    resume, value = steps.send, (yield waited_for)
                except asyncio.CancelledError as cancelled:
                    resume, value = steps.throw, self._instead_of(cancelled)
                except BaseException as error:  # noqa: BLE001 - belongs to the coroutine
                    resume, value = steps.throw, error
        except StopIteration as end:
            return end.value
        finally:
            self._task = None

    def _instead_of(self, cancelled: asyncio.CancelledError) -> BaseException:
        error, self._error = self._error, None
        if error is None or self._task is None:
            return cancelled
        self._task.uncancel()
        return error


def is_current(task: asyncio.Task[Any] | None) -> bool:
    """Return whether this thread's loop is running ``task`` now."""
    loop = asyncio._get_running_loop()
    return loop is not None and asyncio.current_task(loop) is task


_loop_here = PerProcess(lambda: following(asyncio.new_event_loop()))
_unawaited: set[asyncio.Task[Any]] = set()
loop_of_tasks: asyncio.AbstractEventLoop | None = None
"""The loop that runs all coroutines of this process, if a thread runs one."""


def run_to_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine from a plain function; return its result.

    Uses the process's loop of tasks if there is one, otherwise a loop that persists, so that clients and
    connection pools opened on it stay usable for later tasks. If called on a running loop, which it blocks,
    the coroutine runs on a separate loop and thread.
    """
    if is_on_a_loop():
        with ThreadPoolExecutor(1) as executor, carrying():
            return executor.submit(copy_context().run, _run_apart, coroutine).result()
    if loop_of_tasks is not None and loop_of_tasks.is_running():
        return wait_for(soundly(coroutine), loop_of_tasks)
    if threading.current_thread() is not threading.main_thread() or is_green():
        return run_beside(soundly(coroutine))
    return _run_here(coroutine)


def _run_apart(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=lambda: following(asyncio.new_event_loop())) as runner:
        return runner.run(soundly(coroutine))


def _run_here(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the main thread, where signals interrupt it."""
    loop = _loop_here()
    interruptible = Interruptible(coroutine)
    with carrying():
        task = loop.create_task(soundly(interruptible))
    while True:
        try:
            return loop.run_until_complete(task)
        except SoftTimeLimitExceeded as limit:
            # Raised by a signal handler inside the loop; it still has to be raised in the coroutine.
            if task.done():
                raise
            interruptible.interrupt(SoftTimeLimitReached(*limit.args))
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done() or terminate_handler_fired():
                raise
            log_exit(error)


def run_on_loop_of_tasks(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that nobody awaits.

    On the main thread of a process with a loop of tasks, return the ``asyncio.Task`` scheduled on that loop; otherwise
    run the coroutine to its end and return its result.
    """
    if loop_of_tasks is None or threading.current_thread() is not threading.main_thread():
        return run_to_end(coroutine)
    task = loop_of_tasks.create_task(coroutine)
    _unawaited.add(task)  # a loop holds its tasks weakly
    task.add_done_callback(_unawaited.discard)
    return task


async def soundly(awaitable: Awaitable[Any]) -> Any:
    """Await ``awaitable``; replace an error that cannot be read, as a loop that reads it would never end."""
    try:
        return await awaitable
    except BaseException as error:
        if (readable := sound(error)) is error:
            raise
        raise readable from None


def _leave_to_parent() -> None:
    global loop_of_tasks
    loop_of_tasks = None


in_child(_leave_to_parent)
