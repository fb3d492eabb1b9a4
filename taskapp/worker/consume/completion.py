"""The history record of a task that has ended: bounded, safe for every database, masked as its type demands."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any, NamedTuple

from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr

from taskapp.app.masks import MASK, Masked, hides, masked
from taskapp.engine.completions import Finished
from taskapp.engine.settlement import SCHEDULE_HEADER, EndOfTask
from taskapp.settings import get_settings
from taskapp.transport.attempts_header import attempts_in
from taskapp.transport.codec import sent_at_of
from taskapp.transport.message import Received

logger = get_logger(__name__)

NAME_MOST = 255
SHOWN_MOST = 1_024
"""Maximum number of characters of the arguments, and of the result."""
ERROR_MOST = 2_000
TRACEBACK_MOST = 10_000
"""Number of characters kept from the end of a traceback, where the error is."""
REPLACED = "Replaced by new task"
"""Message of the error that Celery's ``replace`` ends a run with; another message continues under the same id."""

STATES = {
    "SUCCESS": "succeeded", "FAILURE": "failed", "REVOKED": "cancelled", "REJECTED": "dead", "IGNORED": "ignored",
}  # fmt: skip
"""Celery's state of an ended run → state in the history."""


class Seen(NamedTuple):
    """Outcome of a run, as far as this process has seen it."""

    result: str = ""
    run_seconds: float | None = None
    error: BaseException | None = None
    traceback: str = ""
    reason: str = ""
    """Why the task did not run; used if there is no ``error``."""


NOTHING = Seen()


def _is_replaced(seen: Seen) -> bool:
    """Return whether another message continues the task."""
    return seen.error is not None and seen.error.args[:1] == (REPLACED,)


def end_of_request(request: Any, state: str) -> EndOfTask | None:
    """Return the history record of the task of ``request``, which ended in Celery's state ``state``.

    ``None`` if the history is off, another message continues the task, or the record cannot be built.
    """
    if not get_settings().keeps_history or _is_replaced(request.seen):
        return None
    try:
        return _packed(_of_request(request, state, request.seen))
    except Exception:  # a text that cannot be read must not change how the task ended
        logger.exception("could not build the history record of task %s[%s]", request.name, request.id)
        return None


def end_of_message(
    app: Any, headers: Mapping[str, Any], queue: str, error: str, *, priority: int = 0, deliveries: int = 0
) -> EndOfTask | None:
    """Return the history record of a task that died outside a run.

    ``None`` if the history is off or the record cannot be built. The record contains the arguments only if the task
    type is known here and masks nothing.
    """
    if not get_settings().keeps_history:
        return None
    now = time()
    try:
        return _packed({
            **_common(headers), "finished_us": int(now * 1_000_000), "queue": _name(queue), "priority": priority,
            "state": "dead", "error": clean(error, ERROR_MOST),
            "attempts": _count(headers.get("retries")) + deliveries, "traceback": _with_attempts(headers, ""),
            **{name: _arguments_of_message(app, headers, name) for name in ("args", "kwargs")},
        })  # fmt: skip
    except Exception:  # as in ``end_of_request``
        logger.exception("could not build the history record of task %s[%s]", headers.get("task"), headers.get("id"))
        return None


def _packed(fields: Mapping[str, Any]) -> EndOfTask:
    return EndOfTask(get_settings().history_backlog, Finished(**fields).packed())


def _of_request(request: Any, state: str, seen: Seen) -> dict[str, Any]:
    headers, now = request.request_dict, time()
    started_at = request.time_start or None
    run_seconds = seen.run_seconds
    if run_seconds is None and started_at is not None:
        run_seconds = now - started_at
    queue, priority = _place(request)
    texts = _texts(request, seen)
    return {
        **_common(headers),
        **texts,
        "traceback": _with_attempts(headers, texts.get("traceback", "")),
        "finished_us": int(now * 1_000_000),
        "queue": _name(queue),
        "priority": _count(priority),
        "state": STATES.get(state, "failed"),
        "node": _name(request.hostname),
        "started_at": started_at,
        "run_seconds": run_seconds,
        "attempts": _count(headers.get("retries")) + _deliveries(headers) + (started_at is not None),
    }


def _place(request: Any) -> tuple[Any, Any]:
    """Return the queue the message came from, which a replay may have changed, and its priority there."""
    if isinstance(request.message, Received):
        _, priority, queue = str(request.message.delivery_tag).split(":", 2)
        return queue, int(priority)
    delivery = request.delivery_info or {}
    return delivery.get("routing_key"), delivery.get("priority")


def _common(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": _name(headers.get("id")),
        "type": _name(headers.get("task")),
        "sent_at": sent_at_of(headers),
        "root_id": _name(headers.get("root_id")),
        "parent_id": _name(headers.get("parent_id")),
        "group_id": _name(headers.get("group")),
        "schedule": _name(headers.get(SCHEDULE_HEADER)),
    }


# --- texts ----------------------------------------------------------------------------------------


def _texts(request: Any, seen: Seen) -> dict[str, str]:
    """Return the texts that may be shown: none for a ``sensitive`` type, and nothing that ``masks`` name."""
    task, error = request.task, _error(seen)
    if getattr(task, "sensitive", False):
        kind = type(seen.error).__name__ if seen.error is not None else seen.reason
        return {"args": MASK, "kwargs": MASK, "result": MASK if seen.result else "", "error": kind}
    texts = {"result": str(seen.result or ""), "error": error, "traceback": str(seen.traceback or "")}
    if getattr(task, "masks", ()):
        shown = _masked(request)
        texts = {name: shown.strike(text) if shown else MASK for name, text in texts.items() if text}
        texts |= _arguments(shown) if shown else {"args": MASK, "kwargs": MASK}
    else:
        texts |= {"args": _shown(request, "args"), "kwargs": _shown(request, "kwargs")}
    traceback = texts.pop("traceback", "")[-TRACEBACK_MOST:]
    return {
        "traceback": clean(traceback, TRACEBACK_MOST),
        **{name: clean(text, ERROR_MOST if name == "error" else SHOWN_MOST) for name, text in texts.items()},
    }


def _with_attempts(headers: Mapping[str, Any], traceback: str) -> str:
    """Return ``traceback`` after the earlier attempts of the task; they fit into what is kept of it."""
    attempts = "\n".join(clean(str(attempt), SHOWN_MOST) for attempt in attempts_in(headers))
    if not attempts or not traceback:
        return attempts or traceback
    return f"{attempts}\n\n{traceback[-(TRACEBACK_MOST - len(attempts) - 2) :]}"


def _error(seen: Seen) -> str:
    if seen.error is None:
        return seen.reason
    try:
        return f"{type(seen.error).__name__}: {seen.error}"
    except Exception:  # noqa: BLE001 - raised by the error's own ``__str__``
        return type(seen.error).__name__


def _masked(request: Any) -> Masked | None:
    """Return the arguments as they may be shown; ``None`` if they cannot be read."""
    try:
        return masked(request.task, request.args, request.kwargs)
    except Exception:  # noqa: BLE001 - a body that cannot be decoded, arguments that cannot be shown
        return None


def _arguments(shown: Masked) -> dict[str, str]:
    return {"args": saferepr(shown.args, SHOWN_MOST), "kwargs": saferepr(shown.kwargs, SHOWN_MOST)}


def _arguments_of_message(app: Any, headers: Mapping[str, Any], name: str) -> str:
    task = app.tasks.get(headers.get("task"))
    if task is None or hides(task):
        return MASK
    return clean(str(headers.get(f"{name}repr") or ""), SHOWN_MOST)


def _shown(request: Any, name: str) -> str:
    """Return the arguments as text: from the message's headers, or rendered here if the sender left it out."""
    text = request.request_dict.get(f"{name}repr")
    return str(text) if text is not None else saferepr(getattr(request, name), SHOWN_MOST)


def clean(text: str, most: int) -> str:
    """Return up to ``most`` characters of ``text``, without any that a database would reject."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _name(value: Any) -> str:
    return clean(str(value), NAME_MOST) if value is not None else ""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0


def _deliveries(headers: Mapping[str, Any]) -> int:
    return _count((headers.get("properties") or {}).get("deliveries"))
