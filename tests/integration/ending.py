"""Task types that make their node end, for tests with a crash limit of one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any

from celery import shared_task

LONG_SECONDS = 60.0
PAGE_BYTES = 4096


def _take_memory() -> bytearray:
    taken = bytearray(400 * 1024 * 1024)
    for page in range(0, len(taken), PAGE_BYTES):
        taken[page] = 1
    return taken


def _end(way: str) -> Any:
    if way == "memory":
        return _take_memory()
    if way == "child":
        # Not at once: the thread that has just forked may take the signal, and nobody learns the sender then.
        return subprocess.run(["sh", "-c", f"sleep 0.3; kill -TERM {os.getpid()}; sleep 5"], check=False)
    return os.kill(os.getpid(), signal.Signals[way])


@shared_task(name="ends")
def end(way: str) -> None:
    kept = _end(way)
    time.sleep(LONG_SECONDS)
    del kept


@shared_task(name="ends.async")
async def end_async(way: str) -> None:
    kept = _end(way)
    await asyncio.sleep(LONG_SECONDS)
    del kept


@shared_task(name="ends.parent", cpu_bound=True)
def end_parent(way: str = "SIGTERM") -> None:
    os.kill(os.getppid(), signal.Signals[way])
    time.sleep(LONG_SECONDS)


@shared_task(name="ends.first")
def end_first_process() -> None:
    os.kill(1, signal.SIGTERM)
    time.sleep(LONG_SECONDS)


@shared_task(name="ends.first.child", cpu_bound=True)
def end_first_process_from_child() -> None:
    os.kill(1, signal.SIGTERM)
    time.sleep(LONG_SECONDS)


@shared_task(name="long", track_started=True)
def long() -> None:
    time.sleep(LONG_SECONDS)


@shared_task(name="long.child", track_started=True, cpu_bound=True)
def long_in_child() -> None:
    time.sleep(LONG_SECONDS)


@shared_task(name="ends.soon")
def end_and_return() -> str:
    os.kill(os.getpid(), signal.SIGTERM)
    return "done"


@shared_task(name="runs")
def run(command: str) -> int:
    return subprocess.run(["sh", "-c", command], check=False).returncode


@shared_task(name="runs.child", cpu_bound=True)
def run_in_child(command: str) -> int:
    return subprocess.run(["sh", "-c", command], check=False).returncode


@shared_task(name="exits.plainly")
def exit_plainly() -> None:
    sys.exit(3)


@shared_task(name="changes.signals")
async def change_signals(how: str) -> None:
    """Change how the process reacts to signals, as a library may that thinks it is a program."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if how == "loop":
            loop.add_signal_handler(number, lambda: None)
        else:
            signal.signal(number, signal.SIG_IGN if how == "ignore" else signal.SIG_DFL)


def _lower_recursion_limit() -> None:
    for limit in range(60, 1_000):
        with contextlib.suppress(RecursionError):  # lower than the stack is deep
            sys.setrecursionlimit(limit)
            return


@shared_task(name="lowers.def")
def lower_recursion_limit(seconds: float) -> None:
    _lower_recursion_limit()
    time.sleep(seconds)


@shared_task(name="lowers.async")
async def lower_recursion_limit_on_the_loop(seconds: float) -> None:
    _lower_recursion_limit()
    await asyncio.sleep(seconds)


@shared_task(name="counts")
def count(number: int) -> int:
    return number


@shared_task(name="changes.readers")
async def change_readers(how: str) -> None:
    """Take the readers of the loop away, or replace them: no program of its own, but a mistaken library may."""
    loop = asyncio.get_running_loop()
    for descriptor in range(3, 80):
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            if how == "removes":
                loop.remove_reader(descriptor)
            else:
                loop.add_reader(descriptor, lambda: None)
