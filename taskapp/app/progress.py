"""Notes of a run about itself: its progress, and why it will be retried."""

from __future__ import annotations

import math
from time import time
from typing import Any

import msgspec

from taskapp.errors.wording import in_words
from taskapp.execution.note_writer import note_writer

NOTE_MOST = 500
ERROR_MOST = 2_000
_encode = msgspec.json.Encoder().encode


def attempt_of(request: Any) -> int:
    """Return the number of the run that ``request`` (a Celery ``Context``) describes, from 1."""
    properties = getattr(request, "properties", None) or {}
    return int((request.retries or 0) + properties.get("deliveries", 0) + 1)


def note_progress(request: Any, done: float, total: float | None, note: str) -> None:
    """Record the progress of the run of ``request``; does nothing outside a worker.

    Raises:
        TypeError: ``done`` or ``total`` is not a number.
        ValueError: One of them is infinite or NaN.
    """
    for name, number in (("done", done), ("total", total)):
        if number is None and name == "total":
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"{name} is {number!r}, not a number; call progress(3, 10) or progress(3)")
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number!r}; use a finite number, or omit the total")
    if not is_of_a_worker(request):
        return
    record = {"done": done, "total": total, "note": str(note)[:NOTE_MOST], "at": time(), "attempt": attempt_of(request)}
    note_writer().progress(request.id, _encode(record))


def note_retry(request: Any, error: BaseException | None, node: str) -> None:
    """Record that the run of ``request`` ended with a retry because of ``error``."""
    if not is_of_a_worker(request):
        return
    text = in_words(error)[:ERROR_MOST] if error is not None else ""
    record = {"at": time(), "attempt": attempt_of(request), "error": text, "node": node}
    note_writer().retry(request.id, _encode(record))


def is_of_a_worker(request: Any) -> bool:
    """Return whether a worker runs the task of ``request``, instead of a direct call."""
    return bool(request is not None and request.id and not request.is_eager and not request.called_directly)
