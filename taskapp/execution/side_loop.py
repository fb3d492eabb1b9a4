"""One event loop beside a pool that has none: the coroutines of ``-P threads`` and ``-P gevent`` meet on it.

One for the process, so that what a module opened on it (a client, a pool of connections) serves all tasks.
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

logger = get_logger(__name__)

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def is_green() -> bool:
    """Say whether the threads of this process are gevent's greenlets."""
    return "gevent.monkey" in sys.modules and bool(sys.modules["gevent.monkey"].is_module_patched("threading"))


def is_on_a_loop() -> bool:
    """Say whether a loop runs the code that asks. Among greenlets asyncio takes the loop of one for that of all."""
    return threading.current_thread() is _thread if is_green() else asyncio._get_running_loop() is not None


def run_beside(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on the loop beside this thread or greenlet, which waits; return what it returns."""
    return wait_for(_to_its_end(coroutine), _loop_of_process())


def wait_for(coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
    """Run a coroutine on the loop of another thread; return what it returns, raise what it raises."""
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    except concurrent.futures.CancelledError as error:
        raise asyncio.CancelledError from error  # which it was, before it went from one thread to the other


async def _to_its_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine; a child process that it forked ends with it, as nobody there waits for what it returns."""
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
    """Log an exit that came out of a loop: asyncio lets it end the thread of the loop, which is no task's to end."""
    logger.error(
        "%s of a child task or a callback that a coroutine left on the event loop; it ends that alone", shown(error),
        exc_info=sound(error), extra={"action": "exit_on_loop"},
    )  # fmt: skip


def _loop_of_process() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            # asyncio's own, which lets other greenlets run while it waits; uvloop's would not.
            _loop = asyncio.new_event_loop()
            forked.guard(_loop)
            _thread = threading.Thread(target=_turn, args=(_loop,), name="taskapp-loop", daemon=True)
            _thread.start()
        return _loop


def _leave_to_parent() -> None:
    global _lock, _loop, _thread
    _lock, _loop, _thread = threading.Lock(), None, None


os.register_at_fork(after_in_child=_leave_to_parent)
