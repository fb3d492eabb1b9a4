"""Support for tasks that fork: the outcome in the child process is not the task's, and the child exits with it."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from taskapp.background import in_child
from taskapp.errors.wording import sound

forks = 0
"""Number of forks between the first process and this one. Code that sees it change is running in a forked child."""


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
_NOBODY = object()


def _after_fork() -> None:
    global forks
    forks += 1
    # A coroutine that forks continues in the child, too. As soon as it waits there, asyncio finds an unexpected current
    # task, before it runs any other task, and reports that to the loop's exception handler.
    running: Any = asyncio.tasks._current_tasks  # type: ignore[attr-defined]  # there is no public way
    for loop in list(_loops):
        running[loop] = _NOBODY


in_child(_after_fork)


def guard(loop: asyncio.AbstractEventLoop) -> None:
    """End every forked child that returns to ``loop``, whose sockets and tasks belong to this process."""
    _loops[loop] = forks
    loop.set_exception_handler(_on_error)


def _on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if _loops.get(loop, forks) != forks:
        leave(RuntimeError("a process forked by a coroutine cannot continue on its parent's event loop"))
    loop.default_exception_handler(context)


def confined(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Return what ``call`` returns; a child process that it has forked exits with it instead."""
    before, error = forks, None
    try:
        return call(*args, **named)
    except BaseException as raised:
        error = raised
        raise
    finally:
        if forks != before:
            leave(error)


def leave(error: BaseException | None = None) -> NoReturn:
    """Exit as Python does when a program returns, or ends with ``error``.

    Never returns to the caller: loop, threads and connections there belong to the parent.
    """
    code, error = 0, None if error is None else sound(error)
    if isinstance(error, SystemExit):
        code = _exit_code(error.code)
    elif error is not None:
        code = 1
        with suppress(Exception):
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _exit_code(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    with suppress(Exception):
        sys.stderr.write(f"{code}\n")
    return 1
