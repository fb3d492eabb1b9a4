"""One event loop beside a pool that has none: the coroutines of ``-P threads`` and ``-P gevent`` meet on it.

One for the process, so that what a module opened on it (a client, a pool of connections) serves all tasks.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any

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
    return asyncio.run_coroutine_threadsafe(coroutine, _loop_of_process()).result()


def _loop_of_process() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            # asyncio's own, which lets other greenlets run while it waits; uvloop's would not.
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="taskapp-loop", daemon=True)
            _thread.start()
        return _loop


def _leave_to_parent() -> None:
    global _lock, _loop, _thread
    _lock, _loop, _thread = threading.Lock(), None, None


os.register_at_fork(after_in_child=_leave_to_parent)
