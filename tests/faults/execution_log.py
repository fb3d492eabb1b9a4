"""Where tasks say that they run: a file, so that no broker can lose or repeat what it says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOG_VARIABLE = "FAULTS_LOG"
WORKER_VARIABLE = "FAULTS_WORKER"
SCHEDULE_VARIABLE = "FAULTS_BEAT_SCHEDULE"
"""JSON, for stock beats: names of timed jobs, and their periods in seconds."""
TICKS_SUFFIX = ".ticks"
"""Appended to the name of the log: where runs say which due time they are."""


def write_line(what: str, request: Any) -> None:
    """Append one line about ``request``: one write on an append-only descriptor, whole or not at all.

    The time is CLOCK_MONOTONIC, which all processes of a machine share and no fault here changes.
    """
    fields = (request.id, what, os.getpid(), f"{time.monotonic():.6f}", os.environ[WORKER_VARIABLE], request.retries)
    line = " ".join(str(field) for field in fields) + "\n"
    # Opened each time: a forked child shares nothing with its parent.
    descriptor = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@contextmanager
def logged(request: Any) -> Iterator[None]:
    """Log the start of a run, and its end where it comes to that."""
    write_line("start", request)
    yield
    write_line("end", request)
