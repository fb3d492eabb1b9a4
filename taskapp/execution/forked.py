"""A task that forks: what the child process comes to is not the task's end, and ends with the child."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from taskapp.errors.wording import sound

forks = 0
"""How many forks lie between this process and the first one. Who finds more than before is a child of itself."""


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
_NOBODY = object()


def _after_fork() -> None:
    global forks
    forks += 1
    # A coroutine that forks goes on in the child, too. As soon as it waits there, asyncio finds that another task than
    # it thought was running, before it comes to any other; a loop reports that to its handler.
    running: Any = asyncio.tasks._current_tasks  # type: ignore[attr-defined]  # there is no public way
    for loop in list(_loops):
        running[loop] = _NOBODY


os.register_at_fork(after_in_child=_after_fork)


def guard(loop: asyncio.AbstractEventLoop) -> None:
    """End every child of this process that gets back to ``loop``, whose sockets and tasks are this one's."""
    _loops[loop] = forks
    loop.set_exception_handler(_on_error)


def _on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if _loops.get(loop, forks) != forks:
        leave(RuntimeError("a process forked by a coroutine cannot go on with the event loop of its parent"))
    loop.default_exception_handler(context)


def leave(error: BaseException | None = None) -> NoReturn:
    """End this process as Python ends a program that returned, or ``error`` came out of.

    It goes no way back: the loop, the threads and the connections it would meet there are its parent's.
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
