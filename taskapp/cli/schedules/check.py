"""Whether what schedules send can be sent, asked before they are kept."""

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
    """Make the message of a tick and throw it away; of a task type that is not known here say so, no more.

    Raises:
        TaskappError: As with ``try_out``.
    """
    import_included(app)
    try_out(app, schedule)
    warn_of_unknown(app, [schedule.task])


def try_out(app: Any, schedule: Schedule) -> None:
    """Make the message of a tick and throw it away.

    Raises:
        TaskappError: It could not be sent: the queue is unknown, the arguments do not fit or are too large.
    """
    now_ms = round(time.time() * 1_000)
    try:
        messages_of(app, schedule, now_ms, tick_id(schedule.name, now_ms))
    except TypeError as error:
        why = f"its task type does not take its arguments: {error}"
        raise BadSchedule("args", schedule.args, why, "give others") from error


def warn_of_unknown(app: Any, tasks: Iterable[str]) -> None:
    """Say which task types are not known here; nodes may have them."""
    for task in sorted({task for task in tasks if task not in app.tasks}):
        say(f"no task type {task!r} is known here; a node must have it", err=True)
