"""Queues, priorities, and routes of the shipped task types.

Queues are served in strict order: nothing in a later queue starts while an earlier one has
ready messages. Within a queue, messages have a priority from 0 to 9; 9 runs first, 0 is the
lowest and the default, on every broker.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

DEFAULT_QUEUES = ("critical", "high", "default", "low")
"""The queues in the order they are served. ``TASKAPP_QUEUES`` replaces the list."""

DEFAULT_QUEUE = "default"
"""Queue of task types without a route."""

LOWEST_PRIORITY = 0
HIGHEST_PRIORITY = 9
PRIORITIES = tuple(range(LOWEST_PRIORITY, HIGHEST_PRIORITY + 1))

TICKS = "taskapp:ticks"
"""Internal queue of ticks waiting to be published to a broker other than Redis; nodes do not consume it."""

SEPARATOR = "\x06\x16"
"""Kombu's separator: of queue and priority in the key of a list, of the parts of a binding."""

TASK_ROUTES: dict[str, str] = {
    "taskapp.add": "default",
    "taskapp.data_processing": "low",
    "taskapp.report_generation": "default",
    "taskapp.send_email": "high",
    "taskapp.http_request": "default",
    "taskapp.canary": "critical",
}
"""Task type to queue, for the shipped task types; ``TASKAPP_ROUTES`` adds to it."""


def queue_for(task_name: str, routes: dict[str, str]) -> str:
    """Return the queue of ``task_name``: its exact route, else the first matching pattern, else the default."""
    if task_name in routes:
        return routes[task_name]
    for pattern, queue in routes.items():
        if fnmatchcase(task_name, pattern):
            return queue
    return DEFAULT_QUEUE
