"""Removes the first frames of a traceback, those of taskapp and Celery, so that it begins with the task's own code."""

from __future__ import annotations

from types import TracebackType
from typing import Any

MACHINERY = ("taskapp.", "celery.", "asyncio.")
"""Prefixes of the modules that call a task's function."""
TASK_TYPES = "taskapp.tasks."
"""Prefix of task types that ship with taskapp."""
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__  # a class may hide it


def task_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Return ``traceback`` from the first frame of a task's code on; unchanged if there is none."""
    found = traceback
    while found is not None:
        name = str(found.tb_frame.f_globals.get("__name__", ""))
        if not name.startswith(MACHINERY) or name.startswith(TASK_TYPES):
            return found
        found = found.tb_next
    return traceback


def begin_in_task(error: BaseException) -> None:
    """Let the traceback of ``error`` begin with the task's code."""
    BaseException.with_traceback(error, task_frames(_traceback_of(error)))
