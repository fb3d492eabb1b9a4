"""What a run says of itself while it goes on: how far it is, and why it is to run again."""

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


def say_progress(request: Any, done: float, total: float | None, note: str) -> None:
    """Note how far the run of ``request`` is; outside a worker do nothing.

    Raises:
        TypeError: ``done`` or ``total`` is no number.
        ValueError: One of them is infinite or not a number at all.
    """
    for name, number in (("done", done), ("total", total)):
        if number is None and name == "total":
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"{name} is {number!r}, no number; say progress(3, 10) or progress(3)")
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number!r}; say a finite number, or leave the total out")
    if not is_of_a_worker(request):
        return
    said = {"done": done, "total": total, "note": str(note)[:NOTE_MOST], "at": time(), "attempt": attempt_of(request)}
    note_writer().progress(request.id, _encode(said))


def note_retry(request: Any, error: BaseException | None, node: str) -> None:
    """Note that the run of ``request`` asked for another, because of ``error``."""
    if not is_of_a_worker(request):
        return
    text = in_words(error)[:ERROR_MOST] if error is not None else ""
    said = {"at": time(), "attempt": attempt_of(request), "error": text, "node": node}
    note_writer().retry(request.id, _encode(said))


def is_of_a_worker(request: Any) -> bool:
    """Say whether ``request`` is of a task a worker runs, not of one that is called."""
    return bool(request is not None and request.id and not request.is_eager and not request.called_directly)
