"""A task type for each promise about limits.

Ids are ``<task type>.<key>.<client>-<call>``, see ``limit_client``, so an id tells which limits its task has.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from taskapp import shared_task
from tests.faults.execution_log import LOG_VARIABLE, write_line

CALLS_SUFFIX = ".calls"
"""Appended to the name of the log: which call's arguments each run has."""
KEPT_SECONDS = 2.0
DEBOUNCE_SECONDS, DEBOUNCE_AT_MOST_SECONDS = 0.5, 2.0
RATE_PER_SECOND, RATE_BURST = 10, 3
MOST: dict[str, dict[str, int]] = {
    "until_end": {"key": 1},
    "refused": {"key": 1},
    "replaced": {"key": 1},
    "latest": {"key": 1},
    "counted": {"key": 2},
    "two_levels": {"key": 1, "all": 3},
    "dropped": {"key": 1},
    "cancelled": {"key": 1},
}
"""By task type: how many may run at once with one key, and with any."""


@contextmanager
def _logged(task: Any, call: str) -> Iterator[None]:
    """Log the start and the end of a run, also of one that is cancelled."""
    line = f"{task.request.id} {os.getpid()} {task.request.retries} {call}\n"
    descriptor = os.open(os.environ[LOG_VARIABLE] + CALLS_SUFFIX, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    write_line("start", task.request)
    try:
        yield
    finally:
        write_line("end", task.request)


def _run(task: Any, call: str, seconds: float) -> str:
    with _logged(task, call):
        time.sleep(seconds)
    return call


@shared_task(name="limits.until_end", bind=True, unique_key="{key}")
def until_end(self: Any, key: str, call: str, seconds: float) -> str:
    """Be unique until the end. A second run logs a second time, as that of all others here."""
    return _run(self, call, seconds)


@shared_task(name="limits.until_start", bind=True, unique_key="{key}", unique_for="start")
def until_start(self: Any, key: str, call: str, seconds: float) -> str:
    """Be unique until the start."""
    return _run(self, call, seconds)


@shared_task(name="limits.for_a_time", bind=True, unique_key="{key}", unique_for=KEPT_SECONDS)
def for_a_time(self: Any, key: str, call: str, seconds: float) -> str:
    """Be unique for ``KEPT_SECONDS``."""
    return _run(self, call, seconds)


@shared_task(name="limits.refused", bind=True, unique_key="{key}", on_duplicate="raise")
def refused(self: Any, key: str, call: str, seconds: float) -> str:
    """Refuse duplicates."""
    return _run(self, call, seconds)


@shared_task(name="limits.replaced", bind=True, unique_key="{key}", on_duplicate="replace")
def replaced(self: Any, key: str, call: str, seconds: float) -> str:
    """Run with the arguments of the latest call before the start."""
    return _run(self, call, seconds)


@shared_task(name="limits.latest", bind=True, unique_key="{key}", on_duplicate="latest")
def latest(self: Any, key: str, call: str, seconds: float) -> str:
    """Have at most one that runs and one that waits."""
    return _run(self, call, seconds)


@shared_task(
    name="limits.debounced", bind=True, unique_key="{key}", debounce=DEBOUNCE_SECONDS,
    debounce_at_most=DEBOUNCE_AT_MOST_SECONDS,
)  # fmt: skip
def debounced(self: Any, key: str, call: str, seconds: float) -> str:
    """Run some time after the latest call, with its arguments."""
    return _run(self, call, seconds)


@shared_task(
    name="limits.rated", bind=True, rate_limit=f"{RATE_PER_SECOND}/s", rate_burst=RATE_BURST, rate_key="{key}"
)  # fmt: skip
def rated(self: Any, key: str, call: str, seconds: float) -> str:
    """Start at most at a rate for each key."""
    return _run(self, call, seconds)


@shared_task(name="limits.counted", bind=True, max_concurrency=2, concurrency_key="{key}")
def counted(self: Any, key: str, call: str, seconds: float) -> str:
    """Run twice at once for each key."""
    return _run(self, call, seconds)


@shared_task(name="limits.two_levels", bind=True, max_concurrency={"{key}": 1, "all": 3})
def two_levels(self: Any, key: str, call: str, seconds: float) -> str:
    """Run once for each key and three times in all."""
    return _run(self, call, seconds)


@shared_task(name="limits.dropped", bind=True, max_concurrency=1, concurrency_key="{key}", on_busy="drop")
def dropped(self: Any, key: str, call: str, seconds: float) -> str:
    """Fail where another one runs."""
    return _run(self, call, seconds)


@shared_task(name="limits.cancelled", bind=True, max_concurrency=1, concurrency_key="{key}", on_busy="cancel")
async def cancelled(self: Any, key: str, call: str, seconds: float) -> str:
    """Make room for the next one."""
    with _logged(self, call):
        await asyncio.sleep(seconds)
    return call


@shared_task(name="limits.fair", bind=True, fair_key="{key}")
def fair(self: Any, key: str, call: str, seconds: float) -> str:
    """Take turns with other keys."""
    return _run(self, call, seconds)
