"""Puts the engine in memory into an app for one test, and everything back afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from time import time
from typing import Any, NoReturn

from celery.worker import state as worker_state

from taskapp.app.application import Celery
from taskapp.celery_internals import own_backend
from taskapp.client.submitter import Submitter
from taskapp.errors.testing import NoAppToTest, NotInKit
from taskapp.execution.note_writer import note_writer
from taskapp.outbox.promptly import promptly
from taskapp.testing.clock import as_instant
from taskapp.testing.internals import app_parts, current_app_of_thread, set_app_parts, set_current_apps
from taskapp.testing.results import MemoryResults
from taskapp.testing.tasks import Tasks
from taskapp.testing.transport import URL
from taskapp.worker.run.execute import forget_runners

CONFIGURATION = {
    "broker_url": URL, "broker_read_url": None, "broker_write_url": None, "result_backend": URL,
    "task_always_eager": False, "task_protocol": 2,
}  # fmt: skip
"""Settings that a test replaces: tasks must neither reach a server nor run where they are submitted."""

# The stubs are incomplete.
_revoked: Any = worker_state.revoked


@contextmanager
def in_process(
    app: Any, *, start: str | float | datetime | None = None, keep_failures: bool = False
) -> Iterator[Tasks]:
    """Let the tasks of ``app`` run in this process; restore the app at the end.

    Args:
        app: A ``taskapp.Celery``.
        start: The time at which its clock stands: ISO 8601 (UTC if it has no offset), a ``datetime`` or Unix seconds;
            ``None``: this machine's.
        keep_failures: See ``Tasks``.

    Raises:
        NoAppToTest: ``app`` is something else.
        ModuleNotImported: A module of its task types cannot be imported.
    """
    if not isinstance(app, Celery):
        raise NoAppToTest(f"{app!r} is no taskapp.Celery")
    start_at = time() if start is None else as_instant(start)
    tasks = Tasks(app, start_at, keep_failures=keep_failures)
    with ExitStack() as stack:
        stack.enter_context(_current(app))
        stack.enter_context(_configured(app))
        stack.enter_context(_parts(app, tasks))
        stack.enter_context(_process(tasks))
        app.loader.import_default_modules()
        app.finalize()
        stack.enter_context(_one_backend(app))
        stack.enter_context(_queues(app, tasks))
        yield tasks


@contextmanager
def _current(app: Any) -> Iterator[None]:
    before = current_app_of_thread()
    app.set_current()
    try:
        yield
    finally:
        set_current_apps(*before)


@contextmanager
def _configured(app: Any) -> Iterator[None]:
    conf = app.conf
    missing = object()
    before = {name: conf.changes.get(name, missing) for name in CONFIGURATION}
    conf.changes.update(CONFIGURATION)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                conf.changes.pop(name, None)
            else:
                conf.changes[name] = value


@contextmanager
def _parts(app: Any, tasks: Tasks) -> Iterator[None]:
    broker, clock = tasks.broker, tasks.engine.clock
    amqp = app.amqp
    parts: dict[str, Any] = {
        "submitter": Submitter(app),
        "resources": _NoResources(),
        "now": lambda: datetime.fromtimestamp(clock.now, app.timezone),
    }
    missing = object()
    before = {name: app.__dict__.get(name, missing) for name in parts}
    own = app_parts(app)
    app.__dict__.update(parts)
    connection = amqp.__dict__.get("Connection", missing)
    amqp.Connection = broker.connection_class
    backend = MemoryResults(app, tasks.engine, tasks.run_for_a_wait, tasks.shown_waiting)
    set_app_parts(app, broker.pool, broker.producers, backend)
    try:
        yield
    finally:
        set_app_parts(app, *own)
        if connection is missing:
            del amqp.Connection
        else:
            amqp.Connection = connection
        for name, part in before.items():
            if part is missing:
                app.__dict__.pop(name, None)
            else:
                app.__dict__[name] = part


@contextmanager
def _one_backend(app: Any) -> Iterator[None]:
    """Let task types with a result backend of their own use the app's: only there a wait runs what is due."""
    own = {task: own_backend(task) for task in app.tasks.values() if own_backend(task) is not None}
    for task in own:
        task.backend = None
    try:
        yield
    finally:
        for task, backend in own.items():
            task.backend = backend


@contextmanager
def _queues(app: Any, tasks: Tasks) -> Iterator[None]:
    """Serve the declared queues in their order; forget those that submits create, for the next test."""
    queues = app.amqp.queues
    tasks.declare(queues)
    try:
        yield
    finally:
        for name in queues.keys() - set(tasks.queues):
            del queues[name]


@contextmanager
def _process(tasks: Tasks) -> Iterator[None]:
    """Replace what belongs to the process of a node, not to an app."""
    revoked: list[str] = []

    def take(name: str, arguments: Mapping[str, Any]) -> None:
        if name == "revoke":
            ids = arguments.get("task_id") or ()
            revoked.extend([ids] if isinstance(ids, str) else ids)
            _revoked.update(revoked)

    tasks.on_command(take)
    notes, note_writer.value = note_writer.value, _NoNotes()  # type: ignore[assignment]  # what runs use of one
    relay = promptly()
    was_inline, relay.is_inline = relay.is_inline, True
    forget_runners()
    try:
        yield
    finally:
        forget_runners()
        relay.is_inline = was_inline
        note_writer.value = notes
        for task_id in revoked:
            _revoked.discard(task_id)


class _NoNotes:
    """In place of the writer of notes: nobody reads them."""

    def progress(self, *_: Any) -> None:
        """Drop the progress of a task."""

    retry = count = end = line = progress

    def flush(self, within_seconds: float) -> bool:  # noqa: ARG002 - nothing waits
        """Return ``True``."""
        return True


class _NoResources:
    """In place of the app's data in Redis."""

    keeps_notes = False

    def open_notes(self) -> None:
        """Return ``None``: there are none."""

    def _missing(self) -> NoReturn:
        raise NotInKit("the app's data: schedules, dead letters, delayed messages, finished tasks")

    engine = schedules = finished_tasks = _missing
