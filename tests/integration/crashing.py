"""Tasks that kill the child process they run in, each time."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from celery import shared_task
from celery.worker.request import Request


def _die(path: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(cpu_bound=True)
def crash(path: str) -> None:
    _die(path)


@shared_task(cpu_bound=True, reject_on_worker_lost=False)
def crash_once(path: str) -> None:
    _die(path)


@shared_task(cpu_bound=True)
def crash_twice(path: str) -> str:
    """Succeed in the third run."""
    runs = Path(path)
    if runs.exists() and len(runs.read_text().split()) >= 2:
        return "survived"
    return str(_die(path))


@shared_task(cpu_bound=True)
def exit_child(path: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    raise SystemExit(3)


@shared_task
def kill_node(path: str) -> None:
    """End the whole worker: it runs on one of its threads."""
    _die(path)


@shared_task
def tell(_request: object, error: BaseException, _traceback: object, path: str = "") -> None:
    """Write down the error that an errback is given."""
    with Path(path).open("a") as file:
        file.write(f"{type(error).__name__}\n")


class ExitsAsItStarts(Request):
    def on_accepted(self, pid: int, time_accepted: float) -> None:
        raise SystemExit(3)


@shared_task(Request=ExitsAsItStarts)
def exit_in_request() -> str:
    return "ran"


@shared_task(Request=ExitsAsItStarts)
async def exit_in_request_on_loop() -> str:
    return "ran"


@shared_task(Request=ExitsAsItStarts, acks_late=False)
def exit_in_request_early() -> str:
    return "ran"
