"""An event loop for the coroutines of pools that have none: ``-P threads`` and ``-P gevent``.

There is one for the process, so that clients and connection pools opened on it serve all tasks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import Coroutine
from typing import Any, NamedTuple

from celery.utils.log import get_logger

from taskapp.background import PerProcess, start_thread
from taskapp.errors.wording import shown, sound
from taskapp.execution import forked
from taskapp.execution.current_task import carrying, following

logger = get_logger(__name__)


def is_green() -> bool:
    """Return whether the threads of this process are gevent's greenlets."""
    return "gevent.monkey" in sys.modules and bool(sys.modules["gevent.monkey"].is_module_patched("threading"))


def is_on_a_loop() -> bool:
    """Return whether the caller runs on a loop. Under gevent, asyncio would report the loop of any greenlet."""
    if not is_green():
        return asyncio._get_running_loop() is not None
    return (side := _side_loop.value) is not None and threading.current_thread() is side.thread


def run_beside(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the process's side loop while this thread or greenlet waits; return its result."""
    with carrying():
        return wait_for(_to_its_end(coroutine), _side_loop().loop)


def wait_for(coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
    """Run a coroutine on the loop of another thread; return its result, or raise its exception."""
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    except concurrent.futures.CancelledError as error:
        raise asyncio.CancelledError from error  # its type before it crossed threads


async def _to_its_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine; in a child process that it forked, exit at its end, as nobody there awaits its result."""
    forks, error = forked.forks, None
    try:
        return await coroutine
    except BaseException as raised:
        error = raised
        raise
    finally:
        if forked.forks != forks:
            forked.leave(error)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            return loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            log_exit(error)


def log_exit(error: BaseException) -> None:
    """Log an exit raised through a loop, which asyncio would let end the loop's thread."""
    logger.error(
        "%s in a child task or callback that a coroutine left on the event loop; only that one ends", shown(error),
        exc_info=sound(error), extra={"action": "exit_on_loop"},
    )  # fmt: skip


class _SideLoop(NamedTuple):
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread


def _new_loop() -> _SideLoop:
    # asyncio's own loop lets other greenlets run while it waits; uvloop's does not.
    loop = following(asyncio.new_event_loop())
    forked.guard(loop)
    return _SideLoop(loop, start_thread(_turn, loop, name="loop"))


_side_loop = PerProcess(_new_loop)
