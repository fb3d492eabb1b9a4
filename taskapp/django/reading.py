"""Reads the result of one of Django's tasks: from its message while it waits or runs, from its result once it ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from celery import states

from taskapp.django.running import NAMES, UNKNOWN_WORKER, How, error_of, result_of, task_at, workers_of
from taskapp.django.tasks_api import TaskError, TaskResultDoesNotExist, TaskResultStatus
from taskapp.errors.django import NotADjangoTask
from taskapp.monitor.task_state.resolve import Evidence, arguments_of, evidence_of, judge
from taskapp.monitor.task_state.states import State, TaskState

STATUS = {
    State.RUNNING: TaskResultStatus.RUNNING,
    State.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    State.FAILED: TaskResultStatus.FAILED,
    State.DEAD: TaskResultStatus.FAILED,
    State.CANCELLED: TaskResultStatus.FAILED,
}
"""All other states are READY: the task waits."""
REVOKED, UNKNOWN_ERROR = "celery.exceptions.TaskRevokedError", "taskapp.errors.TaskappError"


def read_result(backend: Any, task_id: str) -> Any:
    """Return the ``TaskResult`` of the task ``task_id``.

    Raises:
        TaskResultDoesNotExist: Nothing is known of it, or it is no task of Django.
    """
    known = evidence_of(task_id, backend.app)
    arguments, _ = arguments_of(known)
    if known.task not in NAMES or not isinstance(arguments, list | tuple) or len(arguments) != 4:
        raise TaskResultDoesNotExist(task_id)
    path, args, kwargs, how = arguments
    if isinstance(stored := known.outcome.args, list | tuple) and len(stored) == len(arguments):
        how = {**how, **stored[-1]}  # a run has added its start
    try:
        task = task_at(path, {**how, "backend": backend.alias})
    except NotADjangoTask as error:
        raise TaskResultDoesNotExist(str(error)) from error
    state = judge(known)
    result = result_of(task, task_id, args, kwargs, how, **_told(known, state, how))
    if state.state is State.SUCCEEDED:
        object.__setattr__(result, "_return_value", known.outcome.value)
    return result


def _told(known: Evidence, state: TaskState, how: How) -> dict[str, Any]:
    status = STATUS.get(state.state, TaskResultStatus.READY)
    started_at = how.get("started_at") or known.outcome.started_at
    attempts = max(state.attempts, int(started_at is not None))
    is_over = status in (TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED)
    return {
        "status": status,
        # Of several attempts, only the start of the last one is stored.
        "started_at": _at(started_at) if attempts == 1 else None,
        "last_attempted_at": _at(started_at),
        "finished_at": _at(known.outcome.finished_at) if is_over else None,
        "errors": [_error(known, state)] if status is TaskResultStatus.FAILED else [],
        "worker_ids": workers_of(attempts, state.node),
    }


def _error(known: Evidence, state: TaskState) -> Any:
    kind = REVOKED if state.state is State.CANCELLED else known.outcome.error_class or UNKNOWN_ERROR
    return TaskError(exception_class_path=kind, traceback=state.traceback or state.error or state.remark)


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def ended(backend: Any, result: Any, sent: Any) -> Any:
    """Return the ``TaskResult`` of a task that has run where it was enqueued: with ``task_always_eager``."""
    is_success = sent.state == states.SUCCESS
    made = result_of(
        result.task, result.id, result.args, result.kwargs, {"enqueued_at": result.enqueued_at.isoformat()},
        status=TaskResultStatus.SUCCESSFUL if is_success else TaskResultStatus.FAILED,
        started_at=result.enqueued_at, last_attempted_at=result.enqueued_at, finished_at=datetime.now(UTC),
        errors=[] if is_success else [error_of(sent.result)], worker_ids=[backend.app.main or UNKNOWN_WORKER],
    )  # fmt: skip
    if is_success:
        object.__setattr__(made, "_return_value", sent.result)
    return made
