"""An event loop for the coroutines of pools that have none: ``-P threads`` and ``-P gevent``.

There is one for the process, so that clients and connection pools opened on it serve all tasks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any

from celery.utils.log import get_logger

from taskapp.errors.wording import shown, sound
from taskapp.execution import forked
from taskapp.execution.current_task import carrying, following

logger = get_logger(__name__)

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def is_green() -> bool:
    """Return whether the threads of this process are gevent's greenlets."""
    return "gevent.monkey" in sys.modules and bool(sys.modules["gevent.monkey"].is_module_patched("threading"))


def is_on_a_loop() -> bool:
    """Return whether the caller runs on a loop. Under gevent, asyncio would report the loop of any greenlet."""
    return threading.current_thread() is _thread if is_green() else asyncio._get_running_loop() is not None


def run_beside(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the process's side loop while this thread or greenlet waits; return its result."""
    with carrying():
        return wait_for(_to_its_end(coroutine), _loop_of_process())


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


def _loop_of_process() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            # asyncio's own loop lets other greenlets run while it waits; uvloop's does not.
            _loop = following(asyncio.new_event_loop())
            forked.guard(_loop)
            _thread = threading.Thread(target=_turn, args=(_loop,), name="taskapp-loop", daemon=True)
            _thread.start()
        return _loop


def _leave_to_parent() -> None:
    global _lock, _loop, _thread
    _lock, _loop, _thread = threading.Lock(), None, None


os.register_at_fork(after_in_child=_leave_to_parent)
