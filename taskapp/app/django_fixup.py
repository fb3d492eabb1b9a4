"""Celery's Django fixup, extended to coroutines and ``CONN_MAX_AGE``.

Celery closes the database connections of the thread that ran a task. The connections of coroutines belong to another
thread: the one on which ``sync_to_async``, and so Django's asynchronous ORM, runs every function of a process.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from inspect import iscoroutinefunction
from typing import Any

from celery.exceptions import FixupWarning
from celery.fixups import django as stock
from celery.utils.imports import symbol_by_name

from taskapp.celery_internals import current_tasks

logger = logging.getLogger(__name__)
_stock: Any = stock  # the stubs are incomplete
_DjangoFixup: Any = _stock.DjangoFixup
_DjangoWorkerFixup: Any = _stock.DjangoWorkerFixup


def fixup(app: Any) -> Fixup | None:
    """Install the fixup if ``DJANGO_SETTINGS_MODULE`` is set; warn, like Celery, if Django is not installed."""
    if not os.environ.get("DJANGO_SETTINGS_MODULE") or "django" in app.loader_cls.lower():
        return None
    if find_spec("django") is None:
        warnings.warn(FixupWarning(_stock.ERR_NOT_INSTALLED), stacklevel=2)
        return None
    installed: Fixup = Fixup(app).install()
    return installed


class Fixup(_DjangoFixup):
    """Celery's fixup, with ``WorkerFixup`` for its worker."""

    @cached_property
    def worker_fixup(self) -> WorkerFixup:
        """The part that serves a worker."""
        return WorkerFixup(self.app)


class WorkerFixup(_DjangoWorkerFixup):
    """Runs system checks, and closes connections after tasks.

    Connections with a ``CONN_MAX_AGE`` stay open for that long, as they do after a request. The connections of
    coroutines, one for each database, are shared by all of them: they are closed once no coroutine runs.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._lock = threading.Lock()
        self._running = 0
        """Number of running coroutines."""
        self._has_shared = False
        """Whether coroutines have opened a connection."""
        self._pid = os.getpid()

    def validate_models(self) -> None:
        """Set Django up, run its system checks, and log the errors that they find.

        Celery drops what the checks return. ``CELERY_SKIP_CHECKS`` skips them, as in Celery.
        """
        self.django_setup()
        if os.environ.get("CELERY_SKIP_CHECKS"):
            return
        checks = symbol_by_name("django.core.checks")
        for message in checks.run_checks():
            if message.is_serious() and not message.is_silenced():
                logger.error("system check: %s", message, extra={"action": "system_check"})

    def install(self) -> Any:
        """Close connections from here on, like Celery, and also those of coroutines."""
        super().install()
        self._close_database()  # connections that are kept for long must not be inherited by children either
        symbol_by_name("django.db.backends.signals:connection_created").connect(self._on_connected)
        return self

    def on_worker_process_init(self, **options: Any) -> None:
        """Drop inherited connections, like Celery, and the inherited thread of coroutines, which does not run here."""
        if os.getpid() != self._pid:
            self._pid, self._running, self._has_shared = os.getpid(), 0, False
            _sync_to_async().single_thread_executor = ThreadPoolExecutor(max_workers=1)
        super().on_worker_process_init(**options)

    def on_task_prerun(self, sender: Any, **options: Any) -> None:
        """Close what is obsolete before a task."""
        super().on_task_prerun(sender, **options)
        if iscoroutinefunction(sender.run):
            with self._lock:
                self._running += 1

    def on_task_postrun(self, sender: Any, **options: Any) -> None:
        """Close connections after a task."""
        super().on_task_postrun(sender, **options)
        if iscoroutinefunction(sender.run):
            with self._lock:
                self._running -= 1
            if self._has_shared:
                with suppress(RuntimeError):  # the interpreter shuts down
                    _sync_to_async().single_thread_executor.submit(self._close_shared)

    def _on_connected(self, **_: Any) -> None:
        """Note a connection of a coroutine; called on the thread that opened it."""
        task = current_tasks.top
        if task is not None and iscoroutinefunction(task.run):
            self._has_shared = True

    def _close_shared(self) -> None:
        """Close the connections of this thread; while coroutines use them, only those that are broken."""
        if not self._running:
            self._has_shared = False
            self.close_database()
            self.close_cache()
            self._has_shared = any(one.connection is not None for one in _connections())
            return
        for connection in _connections():
            if connection.errors_occurred and not connection.in_atomic_block and not connection.is_usable():
                connection.close()

    def close_database(self, **options: Any) -> None:
        """Close connections of this thread, but keep those whose ``CONN_MAX_AGE`` has not passed.

        With ``CELERY_DB_REUSE_MAX`` it is Celery that decides when.
        """
        connections = _connections()
        if self.db_reuse_max or not any(map(_may_stay, connections)):
            super().close_database(**options)
            return
        for connection in connections:
            if _may_stay(connection):
                connection.close_if_unusable_or_obsolete()
            else:
                connection.close()


def _connections() -> list[Any]:
    """Return the connections of this thread."""
    return list(symbol_by_name("django.db:connections").all(initialized_only=True))


def _may_stay(connection: Any) -> bool:
    """Return whether the connection may outlive a task: not if it is inside a transaction that was never ended."""
    return connection.settings_dict["CONN_MAX_AGE"] != 0 and not connection.in_atomic_block


def _sync_to_async() -> Any:
    return symbol_by_name("asgiref.sync:SyncToAsync")
