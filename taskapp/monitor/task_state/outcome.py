"""The result of a task, as whatever backend has it, without making exceptions of what other programs wrote."""

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
    """What the result backend says."""

    state: str = states.PENDING
    """Celery's."""
    run: int = 0
    """Number of the run that wrote it, see ``taskapp.results.store``."""
    error: str = ""
    traceback: str = ""
    task: str = ""
    queue: str = ""
    node: str = ""
    retries: int = 0
    args: Any = None
    """As the backend has them: JSON, or a text."""
    kwargs: Any = None
    finished_at: float | None = None
    started_at: float | None = None
    submitted_at: float | None = None
    unreadable: str = ""
    """Why what is stored cannot be read."""

    @property
    def attempts(self) -> int:
        """How many runs there were."""
        return self.retries + self.run % 1_000 + 1


def read_outcome(app: Any, task_id: str) -> Outcome:
    """Return what the result backend of ``app`` has of ``task_id``.

    Raises:
        Exception: The backend's, where it cannot be reached.
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
        # A failure set by hand, of which Celery can make no exception.
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
    )


def _error(result: Any) -> str:
    if isinstance(result, dict) and "exc_type" in result:
        message = result.get("exc_message")
        parts = message if isinstance(message, list | tuple) else [message]
        return f"{result['exc_type']}: {', '.join(str(part) for part in parts)}".removesuffix(": ")
    return f"{type(result).__name__}: {result}" if isinstance(result, BaseException) else str(result or "")


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0


def _seconds(moment: Any) -> float | None:
    """Return Unix seconds of what backends write: numbers, ISO text, datetimes with and without a zone."""
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        if isinstance(moment, datetime):
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return float(moment) if moment is not None else None
    except (ValueError, TypeError, OverflowError):
        return None
