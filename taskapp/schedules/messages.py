"""The messages of ticks: captured from ``apply_async`` for the script that queues them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from taskapp.engine.batch import holding
from taskapp.engine.producer import Message
from taskapp.engine.settlement import DUE_HEADER, SCHEDULE_HEADER
from taskapp.errors.schedules import BadSchedule
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.tick_queue import entries_of
from taskapp.transport.transport import is_over_redis


def messages_of(app: Any, schedule: Schedule, due_ms: int, identity: str) -> list[Message]:
    """Return the message of one tick, in a list of length one.

    Raises:
        TaskappError: The message is invalid; see ``Celery.send_task``.
    """
    options = dict(schedule.options)
    if schedule.queue is not None:
        options["queue"] = schedule.queue
    if schedule.priority is not None:
        options["priority"] = schedule.priority
    return made(app, schedule, due_ms, identity, (schedule.args, schedule.kwargs, options))


def made(
    app: Any, schedule: Schedule, due_ms: int, identity: str, call: tuple[Any, Any, Mapping[str, Any]]
) -> list[Message]:
    """Return the message of one tick with the args, kwargs and options of ``call``, in a list of length one.

    Raises:
        TaskappError: The message is invalid; see ``Celery.send_task``.
    """
    args, kwargs, given = call
    options = {**given, "task_id": identity}
    headers = {**(given.get("headers") or {}), SCHEDULE_HEADER: schedule.name, DUE_HEADER: due_ms / 1_000}
    # Markers that stock beat adds, too.
    options["headers"] = {**headers, "celery_beat_task": True, "periodic_task_name": schedule.name}
    if isinstance(expires := given.get("expires"), int | float):
        # Counted from when it is sent, not from when it is prepared.
        options["expires"] = datetime.fromtimestamp(max(due_ms / 1_000, app.now().timestamp()) + expires, UTC)
    task = app.tasks.get(schedule.task)
    send = partial(app.send_task, schedule.task) if task is None else task.apply_async
    send = partial(send, args, kwargs, **options)
    if is_over_redis(app.conf.broker_url):
        messages = _held(send)
    else:
        messages = entries_of(app, schedule.name, identity, lambda recorder: send(producer=recorder))
    if len(messages) != 1:
        raise BadSchedule("task", schedule.task, "it sends no message", "check whether task_always_eager is set")
    return messages


def _held(send: Callable[[], Any]) -> list[Message]:
    with holding() as held:
        send()
    return [message for each in held.producers.values() for message in each]
