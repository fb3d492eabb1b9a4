"""Tasks that make their node end, each in a way of its own; they log their start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from celery import Task, shared_task, signals

from tests.faults.execution_log import logged

LONG_SECONDS = 60.0
"""Far longer than the drain of their node."""
HOG_BYTES = 400 * 1024 * 1024
PAGE_BYTES = 4096


def _hog() -> bytearray:
    taken = bytearray(HOG_BYTES)
    for page in range(0, HOG_BYTES, PAGE_BYTES):
        taken[page] = 1
    return taken


def _by_child(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=False)


WAYS: dict[str, Callable[[], Any]] = {
    "memory": _hog,
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
    "SIGQUIT": lambda: os.kill(os.getpid(), signal.SIGQUIT),
    "SIGTERM of a child": lambda: _by_child("sleep 0.3; kill -TERM $PPID; sleep 2"),
    "SIGTERM of a grandchild": lambda: _by_child(f"sh -c 'sleep 0.3; kill -TERM {os.getpid()}; sleep 2'"),
}
"""How a task ends the node whose process it runs in. What cannot be looked up counts for nobody, see
docs/security.md: these senders stay, and do not begin before the thread that forked is done."""
FROM_A_CHILD: dict[str, Callable[[], Any]] = {
    "SIGTERM of a pool's child": lambda: os.kill(os.getppid(), signal.SIGTERM)
}
"""How one ends the node whose child it runs in."""


@shared_task(name="faults.end", bind=True)
def end(self: Any, way: str) -> None:
    """End its node, and go on. A second run does it again."""
    with logged(self.request):
        kept = {**WAYS, **FROM_A_CHILD}[way]()
        time.sleep(LONG_SECONDS)
        del kept


@shared_task(name="faults.end_async", bind=True)
async def end_async(self: Any, way: str) -> None:
    """End its node, and go on. A second run does it again."""
    with logged(self.request):
        kept = WAYS[way]()
        await asyncio.sleep(LONG_SECONDS)
        del kept


@shared_task(name="faults.end_in_child", bind=True, cpu_bound=True)
def end_in_child(self: Any, way: str) -> None:
    """End the node whose child it runs in, and go on. A second run does it again."""
    with logged(self.request):
        FROM_A_CHILD[way]()
        time.sleep(LONG_SECONDS)


# --- exits that end nothing ---------------------------------------------------------------------------------


class Exits(Task):
    """Its hooks exit."""

    abstract = True

    def on_success(self, *_: Any) -> None:
        """Exit after the success was stored."""
        sys.exit(4)

    def after_return(self, *_: Any) -> None:
        """Exit at the end."""
        raise KeyboardInterrupt


@shared_task(name="faults.exit_in_hook", bind=True, base=Exits)
def exit_in_hook(self: Any) -> str:
    """Run and be done; its hooks and receivers exit. A second run logs a second time."""
    with logged(self.request):
        return "noted"


@shared_task(name="faults.exit_in_task", bind=True)
async def exit_in_task(self: Any) -> str:
    """Run and be done; what it leaves on the loop exits. A second run logs a second time."""

    async def leave() -> None:
        sys.exit(4)

    with logged(self.request):
        child = asyncio.create_task(leave())
        asyncio.get_running_loop().call_soon(sys.exit, 5)
        await asyncio.wait([child])
        return "noted"


@signals.task_postrun.connect
def exit_in_receiver(sender: Any, **_: Any) -> None:
    """Exit when a task has run whose hooks do so."""
    if sender.name == "faults.exit_in_hook":
        sys.exit(6)
