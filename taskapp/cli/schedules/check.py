"""Checks that the tasks of schedules can be sent, before the schedules are stored."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from taskapp.cli.included import import_included
from taskapp.cli.output import say
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.messages import messages_of
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.times import tick_id


def check(app: Any, schedule: Schedule) -> None:
    """Build the message of a tick and discard it; only warn about a task type that is unknown here.

    Raises:
        TaskappError: As ``try_out`` does.
    """
    import_included(app)
    try_out(app, schedule)
    warn_about_unknown(app, [schedule.task])


def try_out(app: Any, schedule: Schedule) -> None:
    """Build the message of a tick and discard it.

    Raises:
        TaskappError: It could not be sent: the queue is unknown, or the arguments do not fit or are too large.
    """
    now_ms = round(time.time() * 1_000)
    try:
        messages_of(app, schedule, now_ms, tick_id(schedule.name, now_ms))
    except TypeError as error:
        why = f"its task type does not accept them: {error}"
        raise BadSchedule("args", schedule.args, why, "correct --args and --kwargs") from error


def warn_about_unknown(app: Any, tasks: Iterable[str]) -> None:
    """Warn about task types that are unknown here; nodes may have them."""
    for task in sorted({task for task in tasks if task not in app.tasks}):
        say(f"task type {task!r} is unknown here; make sure that a node has it", err=True)
