"""The outbox for Django: submits tasks in the current transaction.

    with transaction.atomic():
        order.save()
        outbox.delay(send_receipt, order.id)             # queued if and only if this block commits

The row is written through Django's own connection of a database, ``default`` unless ``using`` names another.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from taskapp.django.models import OutboxMessage
from taskapp.django.outbox_store import DjangoStore
from taskapp.outbox.capture import Captured, What, capture
from taskapp.outbox.promptly import Commit, promptly


class DatabaseOutbox:
    """Submits tasks in the current transaction of one database; see ``using``."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def delay(self, task: What, *args: Any, **kwargs: Any) -> Any:
        """Submit ``task(*args, **kwargs)`` with the current transaction, see ``apply_async``."""
        return self.apply_async(task, args, kwargs)

    def apply_async(self, task: What, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Submit a task with the current transaction; return its result at once, to wait for after the commit.

        Outside ``atomic()`` Django commits each statement, and this one, too.

        Args:
            task: A task type, a signature (``add.s(1)``, a chain, a group), or the name of a task type.
            args: Positional arguments; those of a signature follow them.
            kwargs: Keyword arguments.
            options: Options of Celery's ``apply_async``: ``queue``, ``priority``, ``countdown``, ``eta``, ``expires``,
                ``task_id``, ``link`` … A countdown begins now.

        Raises:
            TaskappError: The arguments or options are invalid, as for ``delay()``; nothing was written.
            django.db.Error: The row could not be written.
        """
        captured = capture(task, args, kwargs, options, None)
        objects = OutboxMessage.objects.using(self._alias)
        objects.bulk_create(OutboxMessage(**row._asdict(), size=len(row.message)) for row in captured.rows)
        transaction.on_commit(partial(_after_commit, self._alias, captured), using=self._alias)
        return captured.result


def using(alias: str) -> DatabaseOutbox:
    """Return the outbox in the database ``alias`` of ``DATABASES``."""
    return DatabaseOutbox(alias)


def delay(task: What, *args: Any, **kwargs: Any) -> Any:
    """Submit with the current transaction of the default database, see ``DatabaseOutbox.delay``."""
    return using(DEFAULT_DB_ALIAS).apply_async(task, args, kwargs)


def apply_async(task: What, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
    """Submit with the current transaction of the default database, see ``DatabaseOutbox.apply_async``."""
    return using(DEFAULT_DB_ALIAS).apply_async(task, args, kwargs, **options)


def _after_commit(alias: str, captured: Captured) -> None:
    if captured.eager is not None:
        captured.eager()
        return
    captured.committed()
    connection = connections[alias]
    if connection.vendor == "sqlite" and connection.is_in_memory_db() and not promptly().is_inline:
        return  # other threads share its connection, which may be in a transaction
    promptly().note(Commit(captured.app, DjangoStore(alias), [row.id for row in captured.rows]))
