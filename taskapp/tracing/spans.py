"""The spans of submits and runs, created by receivers of Celery's signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import time
from typing import Any, NamedTuple

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # missing in the stubs
from celery import signals
from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from taskapp.tracing.provider import tracer
from taskapp.transport.codec import ready_at_of

STOPPED = "the run was stopped from outside (revoked, over its hard time limit, end of a drain), or a hook failed"


class TracedRun(NamedTuple):
    """A run in progress."""

    span: Span
    token: Any
    outer: TracedRun | None
    """The enclosing run, if this one is eager."""


_system = "redis"
_seen_error: SeenError = lambda *_: None  # noqa: E731
_run: ContextVar[TracedRun | None] = ContextVar("taskapp_traced_run", default=None)
SeenError = Callable[[Any, Any, Any, BaseException], tuple[str, str] | None]
"""``seen_error(task, args, kwargs, error)``; see ``tracing.install``."""

_running: dict[str, TracedRun] = {}
"""Runs of this process by task id: hard time limits are reported on another thread."""


def connect(system: str, seen_error: SeenError) -> None:
    """Start to create spans.

    Args:
        system: Conventional name of the broker's system.
        seen_error: See ``tracing.install``.
    """
    global _system, _seen_error
    _system, _seen_error = system, seen_error
    signals.before_task_publish.connect(on_submit, weak=False)
    signals.task_prerun.connect(on_begin, weak=False)
    signals.task_postrun.connect(on_end, weak=False)
    signals.task_failure.connect(on_failure, weak=False)
    signals.task_retry.connect(on_retry, weak=False)


def on_submit(sender: str, headers: dict[str, Any], routing_key: str = "", **_: Any) -> None:
    """Create the span of a submit, and inject it into the message's headers.

    If there is no current span, the given headers name the trace, for example for a retry or the end of a chord.
    """
    context = contexts.get_current()
    if not trace.get_current_span(context).get_span_context().is_valid:
        context = propagate.extract(_texts(headers), context)
    attributes = _attributes(sender, headers.get("id"), routing_key, headers.get("retries"))
    attributes.update({"messaging.operation.name": "submit", "messaging.operation.type": "create"})
    if headers.get("eta"):
        attributes["taskapp.eta"] = str(headers["eta"])
    span = tracer().start_span(f"submit {sender}", context, SpanKind.PRODUCER, attributes)
    for field in propagate.get_global_textmap().fields:
        headers.pop(field, None)
    propagate.inject(headers, trace.set_span_in_context(span, context))
    span.end()


def on_begin(task: Any, task_id: str, **_: Any) -> None:
    """Start the span of a run and make it current until the run ends."""
    request = task.request
    if request.is_eager:
        context, kind = contexts.get_current(), SpanKind.INTERNAL
    else:
        context, kind = propagate.extract(_texts(request.headers), Context()), SpanKind.CONSUMER
    attributes = _attributes(task.name, task_id, _queue(request), request.retries)
    attributes.update({"messaging.operation.name": "run", "messaging.operation.type": "process"})
    if request.hostname:
        attributes["taskapp.node"] = request.hostname
    if (waited_seconds := _waited_seconds(request)) is not None:
        attributes["taskapp.queue_wait_seconds"] = waited_seconds
    span = tracer(of_node=not request.is_eager).start_span(f"run {task.name}", context, kind, attributes)
    token = contexts.attach(trace.set_span_in_context(span, context))
    run = TracedRun(span, token, _run.get())
    _run.set(run)
    _running[task_id] = run


def on_end(task_id: str, state: str | None, **_: Any) -> None:
    """End the span of a run."""
    run = _run.get()
    if run is None:
        return
    _run.set(run.outer)
    if _running.get(task_id) is run:
        del _running[task_id]
    if state is not None:
        run.span.set_attribute("taskapp.state", state)
    elif not _has_failed(run.span):
        run.span.set_status(Status(StatusCode.ERROR, STOPPED))
    contexts.detach(run.token)
    run.span.end()


def on_failure(sender: Any, task_id: str, exception: Any, args: Any = (), kwargs: Any = None, **_: Any) -> None:
    """Record the error of a failed run; for a run lost with its process, create a span just for that."""
    run, request = _running.get(task_id), sender.request
    if run is not None:
        _record(run.span, exception, sender, args, kwargs)
    elif request.id == task_id:
        context = propagate.extract(_texts(request.headers), Context())
        attributes = _attributes(sender.name, task_id, _queue(request), request.retries)
        attributes.update({"messaging.operation.name": "run", "messaging.operation.type": "process"})
        span = tracer().start_span(f"run {sender.name}", context, SpanKind.CONSUMER, attributes)
        _record(span, exception, sender, args, kwargs)
        span.set_attribute("taskapp.state", "FAILURE")
        span.end()


def on_retry(sender: Any, request: Any, reason: Any, **_: Any) -> None:
    """Record the error that a run is retried for; a task that only asks to run again has none."""
    run = _running.get(request.id)
    if run is not None and isinstance(reason.exc, BaseException):
        _record(run.span, reason.exc, sender, request.args, request.kwargs)


def ids() -> tuple[str, str] | None:
    """Return the current trace id and span id in hexadecimal, or ``None`` if there is no current span."""
    span = trace.get_current_span().get_span_context()
    return (trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)) if span.is_valid else None


def _attributes(name: str, task_id: Any, queue: str, retries: Any) -> dict[str, Any]:
    return {
        "messaging.system": _system,
        "messaging.destination.name": queue,
        "messaging.message.id": str(task_id),
        "taskapp.task_type": name,
        "taskapp.attempt": int(retries or 0) + 1,
    }


def _queue(request: Any) -> str:
    return str((request.delivery_info or {}).get("routing_key") or "")


def _waited_seconds(request: Any) -> float | None:
    """Return how long a task has been ready, or ``None`` if unknown."""
    ready_at = ready_at_of(vars(request))
    return None if ready_at is None else round(max(time() - ready_at, 0.0), 6)


def _texts(headers: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the headers that are strings: propagators assume that all are, but others may send anything."""
    return {key: value for key, value in (headers or {}).items() if isinstance(value, str)}


def _has_failed(span: Span) -> bool:
    status = getattr(span, "status", None)
    return status is not None and status.status_code is StatusCode.ERROR


def _record(span: Span, error: Any, task: Any, args: Any, kwargs: Any) -> None:
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    seen = _seen_error(task, args or (), kwargs or {}, error)
    if seen is None:
        span.record_exception(error)
        message = str(error)
    else:
        # Masked for collectors as for other readers: see ``masks`` and ``sensitive``.
        kind, (message, trace) = type(error), seen
        span.add_event("exception", {
            "exception.type": f"{kind.__module__}.{kind.__qualname__}", "exception.message": message,
            "exception.stacktrace": trace, "exception.escaped": "False",
        })  # fmt: skip
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {message}"))
