"""Queues, priorities, and which task type goes where.

Queues are taken in strict order: nothing of a later queue starts while an earlier one has
something ready. Inside a queue messages have a priority from 0 to 9; 9 goes first, 0 is the
lowest and the default, the same sense on every broker.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

DEFAULT_QUEUES = ("critical", "high", "default", "low")
"""The queues in the order they are taken. ``TASKAPP_QUEUES`` replaces the list."""

DEFAULT_QUEUE = "default"
"""Where a task type goes that no route names."""

LOWEST_PRIORITY = 0
HIGHEST_PRIORITY = 9
PRIORITIES = tuple(range(LOWEST_PRIORITY, HIGHEST_PRIORITY + 1))

OUTBOX = "taskapp:outbox"
"""No queue for nodes: here ticks wait until they are published to a broker that is no Redis."""

PRIORITY_SEPARATOR = "\x06\x16"
"""What kombu puts between a queue's name and its priority in the key of a Redis list."""

TASK_ROUTES: dict[str, str] = {
    "taskapp.add": "default",
    "taskapp.data_processing": "low",
    "taskapp.report_generation": "default",
    "taskapp.send_email": "high",
    "taskapp.http_request": "default",
    "taskapp.canary": "critical",
}
"""Task type to queue, for the task types that ship; ``TASKAPP_ROUTES`` adds to it."""


def queue_for(task_name: str, routes: dict[str, str]) -> str:
    """Return the queue of ``task_name``: an exact route, else the first pattern, else the default."""
    if task_name in routes:
        return routes[task_name]
    for pattern, queue in routes.items():
        if fnmatchcase(task_name, pattern):
            return queue
    return DEFAULT_QUEUE


def ready_key(queue: str, priority: int) -> str:
    """Return the name of the Redis list of ``queue`` at ``priority``, as kombu names it."""
    return f"{queue}{PRIORITY_SEPARATOR}{priority}" if priority else queue
