"""Turns a call of ``delay()`` or ``apply_async()`` into rows of the outbox, with all its checks, without a broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from celery.app import app_or_default
from celery.canvas import Signature
from kombu.utils.json import dumps

from taskapp.client.protocol import new_id
from taskapp.client.submitter import Submitter
from taskapp.client.written_messages import Recorder, Written, recorded
from taskapp.engine.envelope import LONGEST_NAME_BYTES
from taskapp.errors.outbox import CannotBeInOutbox, NotAnAppOfTaskapp
from taskapp.errors.tasks import BadOption
from taskapp.outbox.canvas import as_messages
from taskapp.outbox.rows import OutboxRow, now_us

What = Any
"""What to submit: a task type, its name, or a signature."""
OWN_PRODUCER = ("producer", "publisher", "connection")
"""Options that would send the message past the outbox."""
PROTOCOL = 2
"""Celery's message format."""


class Captured(NamedTuple):
    """A submit that waits for its transaction."""

    app: Any
    result: Any
    """``AsyncResult`` of the task; ``GroupResult`` of a group."""
    rows: Sequence[OutboxRow]
    eager: Callable[[], Any] | None = None
    """Runs the task in this process; set instead of rows if the app is eager (``task_always_eager``)."""
    parent: Any = None
    """The running task that submitted it, if it is to become its child."""

    def committed(self) -> None:
        """Note that the transaction has committed: make the task a child of the one that still runs here."""
        if self.parent is not None and self.app.current_worker_task is self.parent:
            self.parent.add_trail(self.result)


def capture(
    what: What, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: Mapping[str, Any], app: Any
) -> Captured:
    """Check a submit and return its rows.

    Args:
        what: The task type, its name, or a signature.
        args: Arguments; of a signature: arguments before its own.
        kwargs: Keyword arguments.
        options: Options of ``apply_async``.
        app: The app of a task type given by name; ``None``: the current app.

    Raises:
        TaskappError: As ``apply_async`` does, except that no broker is needed.
        CannotBeInOutbox: The app uses Celery's old message format.
        NotAnAppOfTaskapp: Its app is one of stock Celery.
    """
    name, app = _name_and_app(what, app)
    if not isinstance(submitter := getattr(app, "submitter", None), Submitter):
        raise NotAnAppOfTaskapp(name, app)
    if app.conf.task_protocol != PROTOCOL:
        raise CannotBeInOutbox(name, f"task_protocol is {app.conf.task_protocol}; set it to {PROTOCOL}")
    for option in OWN_PRODUCER:
        if options.get(option) is not None:
            raise BadOption(name, option, options[option], "leave it out: a relay of the outbox sends the message")
    if submitter.is_eager and not isinstance(what, str):
        return _eager(what, args, kwargs, options, app)
    if isinstance(what, Signature):
        what, args, kwargs = as_messages(what, args, kwargs, options)
    parent = app.current_worker_task if options.get("add_to_parent", True) else None
    options = {**options, "add_to_parent": False}  # the transaction may be rolled back
    result, recorder = recorded(app, lambda producer: _send(what, args, kwargs, options, app, producer))
    rows = [_row(each, announces=bool(recorder.events)) for each in recorder.tasks]
    return Captured(app, result, rows, parent=parent)


def _name_and_app(what: What, app: Any) -> tuple[str, Any]:
    if isinstance(what, str):
        return what, app_or_default(app)
    if isinstance(what, Signature):
        return str(what.get("task")), what.app
    if not hasattr(what, "apply_async"):
        raise TypeError(f"{what!r} is neither a task type, nor the name of one, nor a signature such as add.s(1)")
    return what.name, what.app


def _send(
    what: What, args: Any, kwargs: Any, options: Mapping[str, Any], app: Any, producer: Recorder
) -> Any:  # fmt: skip
    if isinstance(what, str):
        return app.send_task(what, args, kwargs, **options, producer=producer)
    return what.apply_async(args, kwargs, **options, producer=producer)


def _eager(what: What, args: Any, kwargs: Any, options: Mapping[str, Any], app: Any) -> Captured:
    if isinstance(what, Signature):
        what = what.clone()
        result = what.freeze(options.get("task_id"))
        return Captured(app, result, (), partial(what.apply_async, args, kwargs, **options))
    if payload := what.payload():
        payload.to_json(args or (), kwargs or {})
    options = {**options, "task_id": options.get("task_id") or new_id()}
    return Captured(app, what.AsyncResult(options["task_id"]), (), partial(what.apply_async, args, kwargs, **options))


def _row(written: Written, *, announces: bool) -> OutboxRow:
    headers = written["options"]["headers"]
    identity, name = headers["id"], headers["task"]
    for option, text in (("task_id", identity), ("name", name)):
        if len(text.encode()) > LONGEST_NAME_BYTES:
            raise BadOption(name[:40], option, text, f"use at most {LONGEST_NAME_BYTES} bytes")
    queue = "" if written["options"]["exchange"] else written["options"]["routing_key"]
    return OutboxRow(identity, now_us(), name, queue, dumps({"task": written, "announces": announces}))
