"""Task types with circuit breakers, as a user writes them; apps that acknowledge early load them, too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from taskapp import Backoff, CircuitBreaker, shared_task
from taskapp.errors import PermanentError

BREAKER = CircuitBreaker(failures=3, open_for=600, errors=(ConnectionError, TimeoutError, RuntimeError))
QUICK = CircuitBreaker(failures=2, open_for=0.5)


def run(path: str) -> str:
    """Append a line to the file ``path`` and do what its name says."""
    what = Path(path).name
    with Path(path).open("a") as ran:
        ran.write(f"{time.time()}\n")
    if what.startswith("fails"):
        raise ConnectionError("away")
    if what.startswith("permanent"):
        raise PermanentError("no such account")
    if what.startswith("value"):
        raise ValueError("of the caller")
    return what


@shared_task(acks_late=True, circuit_breaker=BREAKER)
def call(path: str) -> str:
    return run(path)


@shared_task(acks_late=True, circuit_breaker=BREAKER)
async def call_in_a_coroutine(path: str) -> str:
    return run(path)


@shared_task(acks_late=True, circuit_breaker=BREAKER, cpu_bound=True)
def call_in_a_child(path: str) -> str:
    return run(path)


@shared_task(acks_late=True, circuit_breaker=BREAKER, retry_on={ConnectionError: Backoff(first=0)}, max_retries=50)
def call_and_retry(path: str) -> str:
    return run(path)


@shared_task(acks_late=True, circuit_breaker=CircuitBreaker(failures=2, open_for=600), cpu_bound=True, time_limit=1)
def hangs(path: str) -> None:
    run(path)
    time.sleep(600)


@shared_task(acks_late=True, circuit_breaker=QUICK)
def recovers(path: str, mended: str) -> str:
    run(path)
    if not Path(mended).exists():
        raise ConnectionError("away")
    return "done"


@shared_task(acks_late=True, circuit_breaker=QUICK, max_concurrency=2, rate_limit="1000/s", fair_key="{tenant}")
def limited(tenant: str, fail: bool) -> Any:
    if fail:
        raise ConnectionError("away")
    return tenant
