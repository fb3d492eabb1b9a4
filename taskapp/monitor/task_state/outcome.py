"""Reads a task's result from any backend, without building exception objects from what other programs wrote."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from celery import states
from celery.backends.base import DisabledBackend, KeyValueStoreBackend
from celery.exceptions import SecurityError
from kombu.exceptions import ContentDisallowed, DecodeError

from taskapp.errors.tasks import UnreadableResult
from taskapp.results.decoding import why_undecodable


class Outcome(NamedTuple):
    """A result as stored by the backend."""

    state: str = states.PENDING
    """Celery's state."""
    run: int = 0
    """Number of the run that wrote it; see ``taskapp.results.store``."""
    error: str = ""
    traceback: str = ""
    task: str = ""
    queue: str = ""
    node: str = ""
    retries: int = 0
    args: Any = None
    """As stored: JSON, or text."""
    kwargs: Any = None
    finished_at: float | None = None
    started_at: float | None = None
    submitted_at: float | None = None
    value: Any = None
    """The returned value of a success."""
    error_class: str = ""
    """Import path of the class of the error, if it is known."""
    unreadable: str = ""
    """Why the stored result cannot be read; empty if it can."""

    @property
    def attempts(self) -> int:
        """Number of runs so far."""
        return self.retries + self.run % 1_000 + 1


def read_outcome(app: Any, task_id: str) -> Outcome:
    """Read the result of ``task_id`` from the backend of ``app``.

    Raises:
        Exception: The backend cannot be reached; the type depends on the backend.
    """
    backend = app.backend
    if isinstance(backend, DisabledBackend):
        return Outcome()
    try:
        if isinstance(backend, KeyValueStoreBackend):
            raw = backend.get(backend.get_key_for_task(task_id))
            return _outcome(backend.decode(raw)) if raw else Outcome()
        return _outcome(backend.get_task_meta(task_id, cache=False))
    except UnreadableResult as error:
        return Outcome(unreadable=error.why)
    except DecodeError as error:
        return Outcome(unreadable=why_undecodable(error))
    except ContentDisallowed as error:
        return Outcome(unreadable=f"{error} (result_accept_content)")
    except (ValueError, TypeError, LookupError, AttributeError, SecurityError) as error:
        # A failure stored by hand, from which Celery cannot build an exception.
        return Outcome(state=states.FAILURE, error=str(error))


def _outcome(meta: Any) -> Outcome:
    if not isinstance(meta, dict):
        return Outcome()
    state, result = str(meta.get("status") or states.PENDING), meta.get("result")
    started: dict[str, Any] = result if state == states.STARTED and isinstance(result, dict) else {}
    return Outcome(
        state=state,
        run=_count(meta.get("run")),
        error=_error(result) if state in states.EXCEPTION_STATES else "",
        traceback=str(meta.get("traceback") or ""),
        task=str(meta.get("name") or ""),
        queue=str(meta.get("queue") or ""),
        node=str(meta.get("worker") or started.get("hostname") or ""),
        retries=_count(meta.get("retries")),
        args=meta.get("args"),
        kwargs=meta.get("kwargs"),
        finished_at=_seconds(meta.get("date_done")) if state in states.READY_STATES else None,
        started_at=_seconds(meta.get("started_at")),
        submitted_at=_seconds(meta.get("sent_at")),
        value=result if state == states.SUCCESS else None,
        error_class=_error_class(result) if state in states.EXCEPTION_STATES else "",
    )


def _error(result: Any) -> str:
    if isinstance(result, dict) and "exc_type" in result:
        message = result.get("exc_message")
        parts = message if isinstance(message, list | tuple) else [message]
        return f"{result['exc_type']}: {', '.join(str(part) for part in parts)}".removesuffix(": ")
    return f"{type(result).__name__}: {result}" if isinstance(result, BaseException) else str(result or "")


def _error_class(result: Any) -> str:
    if isinstance(result, dict) and "exc_type" in result:
        return f"{result.get('exc_module') or 'builtins'}.{result['exc_type']}"
    kind = type(result)
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(result, BaseException) else ""


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _seconds(moment: Any) -> float | None:
    """Convert a backend's time to Unix seconds: a number, ISO text, or a datetime with or without a zone."""
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        if isinstance(moment, datetime):
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return float(moment) if moment is not None else None
    except (ValueError, TypeError, OverflowError):
        return None
