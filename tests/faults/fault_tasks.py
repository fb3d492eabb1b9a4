"""The task types the matrix runs: they log their start and their end, and some of them do harm."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import shared_task

from tests.faults.execution_log import WORKER_VARIABLE, logged

HOG_CHUNK_BYTES = 256 * 1024 * 1024
HOG_LIMIT_BYTES = 64 * 1024**3


@shared_task(name="faults.note", bind=True)
def note(self: Any) -> str:
    """Run and be done. A second run logs a second time."""
    with logged(self.request):
        return "noted"


@shared_task(name="faults.hold", bind=True)
def hold(self: Any, seconds: float) -> float:
    """Take ``seconds``. A second run logs a second time."""
    with logged(self.request):
        time.sleep(seconds)
        return seconds


@shared_task(name="faults.compute", bind=True, cpu_bound=True)
def compute(self: Any, seconds: float) -> float:
    """Take ``seconds`` in a child process. A second run logs a second time."""
    with logged(self.request):
        time.sleep(seconds)
        return seconds


@shared_task(name="faults.where", bind=True)
def where(self: Any, seconds: float) -> str:
    """Take ``seconds`` and return the life of the worker it ran on. A second run logs a second time."""
    with logged(self.request):
        time.sleep(seconds)
        return os.environ[WORKER_VARIABLE]


@shared_task(name="faults.number", bind=True)
def number(self: Any, value: int, seconds: float) -> int:
    """Take ``seconds`` and return ``value``. A second run logs a second time."""
    with logged(self.request):
        time.sleep(seconds)
        return value


@shared_task(name="faults.number_child", bind=True, cpu_bound=True)
def number_child(self: Any, value: int, seconds: float) -> int:
    """Take ``seconds`` in a child process and return ``value``. A second run logs a second time."""
    with logged(self.request):
        time.sleep(seconds)
        return value


@shared_task(name="faults.receive", bind=True)
def receive(self: Any, results: Any) -> Any:
    """Return what came before it: the end of a chain, the body of a chord. A second run logs a second time."""
    with logged(self.request):
        return results


@shared_task(name="faults.refuse", bind=True)
def refuse(self: Any, seconds: float) -> None:
    """Take ``seconds`` and fail. A second run logs a second time."""
    with logged(self.request):
        time.sleep(seconds)
    raise ValueError("refused on purpose")


@shared_task(name="faults.errback", bind=True)
def errback(self: Any, failed_id: str) -> str:
    """Return the id of the task whose failure it received. A second run logs a second time."""
    with logged(self.request):
        return failed_id


@shared_task(name="faults.hold_once", bind=True, acks_late=False)
def hold_once(self: Any, seconds: float) -> float:
    """Take ``seconds``; asks for at most one run. A second run logs a second time."""
    with logged(self.request):
        time.sleep(seconds)
        return seconds


@shared_task(name="faults.hold_fragile", bind=True, reject_on_worker_lost=False)
def hold_fragile(self: Any, seconds: float) -> float:
    """Take ``seconds``; asks to fail when its process dies. A second run logs a second time."""
    with logged(self.request):
        time.sleep(seconds)
        return seconds


@shared_task(name="faults.fail_until", bind=True, max_retries=10)
def fail_until(self: Any, retries: int, countdown: float) -> int:
    """Retry ``retries`` times, ``countdown`` seconds apart, then succeed. Each run is logged."""
    with logged(self.request):
        done = int(self.request.retries)
    if done < retries:
        raise self.retry(countdown=countdown)
    return done


@shared_task(name="faults.exit", bind=True)
def exit_at_once(self: Any) -> None:
    """End the process it runs in, whatever that is. A second run does it again."""
    with logged(self.request):
        os._exit(1)


@shared_task(name="faults.kill", bind=True)
def kill_itself(self: Any) -> None:
    """Send SIGKILL to the process it runs in. A second run does it again."""
    with logged(self.request):
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="faults.memory_error", bind=True)
def raise_memory_error(self: Any) -> None:
    """Raise MemoryError. A second run does it again."""
    with logged(self.request):
        raise MemoryError("raised on purpose")


@shared_task(name="faults.hog", bind=True)
def hog(self: Any) -> None:
    """Take address space until there is none; the memory is never touched, so the machine is safe.

    Its worker has a limit (``prlimit --as``). Without one it gives up at 64 GiB. A second run does it again.
    """
    with logged(self.request):
        taken: list[bytes] = []
        while len(taken) * HOG_CHUNK_BYTES < HOG_LIMIT_BYTES:
            # Zeroed bytes come from calloc, which touches nothing; a bytearray would be written to.
            taken.append(bytes(HOG_CHUNK_BYTES))
        raise AssertionError("the worker of faults.hog has no limit of address space")


@shared_task(name="faults.quiet")
def quiet() -> str:
    """Run and be done, and log nothing. A second run does the same."""
    return "quiet"
