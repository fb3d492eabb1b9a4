"""The two task types that run functions decorated with Django's ``@task``: one for functions, one for coroutines.

A message names the function by its import path and says how the task was enqueued. Nothing else may run: what the path
leads to must be a ``Task`` of Django.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from time import time
from typing import Any

from celery import shared_task
from django.utils.module_loading import import_string

from taskapp.django.tasks_api import (
    InvalidTask,
    Task,
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_backends,
    task_finished,
    task_started,
)
from taskapp.errors.django import NotADjangoTask

FUNCTION, COROUTINE = "taskapp.django.run", "taskapp.django.arun"
"""Names of the task types."""
NAMES = (FUNCTION, COROUTINE)
UNKNOWN_WORKER = "unknown"
"""Stands for the node of an earlier attempt, which is not stored."""

How = dict[str, Any]
"""How a task was enqueued, and by whom it runs: ``backend``, ``priority``, ``queue_name``, ``run_after`` and
``enqueued_at`` (ISO 8601); the run adds ``started_at`` (Unix seconds), which is so stored with its result."""


def task_at(path: object, how: How) -> Any:
    """Return the Django ``Task`` at the import ``path``, as it was enqueued.

    Raises:
        NotADjangoTask: There is none.
    """
    try:
        found = import_string(path)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise NotADjangoTask.at(path, str(error)) from error
    if not isinstance(found, Task):
        raise NotADjangoTask.at(path, f"it is a {type(found).__name__}")
    run_after = moment(how.get("run_after"))
    options = {name: how[name] for name in ("backend", "priority", "queue_name") if name in how}
    try:
        return replace(found, **options, run_after=run_after)
    except InvalidTask:  # this process allows fewer queues than the one that enqueued it
        return found


def moment(text: str | None) -> datetime | None:
    """Return the time that ``text`` (ISO 8601) names."""
    return datetime.fromisoformat(text) if text else None


def result_of(task: Any, task_id: str, args: Any, kwargs: Any, how: How, **more: Any) -> Any:
    """Return a ``TaskResult``; times and workers that ``more`` does not name are unknown.

    Raises:
        TypeError: An argument cannot be JSON.
    """
    usual = {
        "status": TaskResultStatus.READY, "enqueued_at": moment(how.get("enqueued_at")), "started_at": None,
        "last_attempted_at": None, "finished_at": None, "errors": [], "worker_ids": [],
    }  # fmt: skip
    return TaskResult(task=task, id=task_id, args=args, kwargs=kwargs, backend=task.backend, **{**usual, **more})


class _Run:
    """One run of a function."""

    def __init__(self, request: Any, path: object, args: Any, kwargs: Any, how: How) -> None:
        self.task = task_at(path, how)
        self.sender = type(task_backends[self.task.backend])
        how["started_at"] = time()
        now = datetime.fromtimestamp(how["started_at"], UTC)
        workers = workers_of(attempts_of(request), request.hostname or UNKNOWN_WORKER)
        self.result = result_of(
            self.task, request.id, args, kwargs, how, status=TaskResultStatus.RUNNING, started_at=now,
            last_attempted_at=now, worker_ids=workers,
        )  # fmt: skip
        context = (TaskContext(task_result=self.result),) if self.task.takes_context else ()
        self.args, self.kwargs = (*context, *self.result.args), self.result.kwargs

    def succeed(self, value: Any) -> Any:
        """Note the returned value; return it as JSON."""
        value = normalize_json(value)
        self._end(TaskResultStatus.SUCCESSFUL)
        object.__setattr__(self.result, "_return_value", value)
        return value

    def fail(self, error: BaseException) -> None:
        """Note that the function raised ``error``."""
        self.result.errors.append(error_of(error))
        self._end(TaskResultStatus.FAILED)

    def _end(self, status: Any) -> None:
        object.__setattr__(self.result, "finished_at", datetime.now(UTC))
        object.__setattr__(self.result, "status", status)


def attempts_of(request: Any) -> int:
    """Return how many runs of the task have started, this one included."""
    deliveries = (getattr(request, "properties", None) or {}).get("deliveries") or 0
    return int(request.retries or 0) + int(deliveries) + 1


def workers_of(attempts: int, node: str) -> list[str]:
    """Return a worker id for each attempt; only that of the last one is known."""
    return [UNKNOWN_WORKER] * (attempts - 1) + [node] * min(attempts, 1)


def error_of(error: BaseException) -> Any:
    """Return Django's form of ``error``."""
    from traceback import format_exception

    kind = type(error)
    return TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback="".join(format_exception(error))
    )


@shared_task(name=FUNCTION, bind=True, ignore_result=False)
def run(self: Any, path: str, args: list[Any], kwargs: dict[str, Any], how: How) -> Any:
    """Run the function at ``path``."""
    one = _Run(self.request, path, args, kwargs, how)
    if iscoroutinefunction(one.task.func):
        raise NotADjangoTask.at(path, "it has become a coroutine function since it was enqueued")
    task_started.send(sender=one.sender, task_result=one.result)
    try:
        value = one.succeed(one.task.func(*one.args, **one.kwargs))
    except BaseException as error:
        one.fail(error)
        task_finished.send(sender=one.sender, task_result=one.result)
        raise
    task_finished.send(sender=one.sender, task_result=one.result)
    return value


@shared_task(name=COROUTINE, bind=True, ignore_result=False)
async def arun(self: Any, path: str, args: list[Any], kwargs: dict[str, Any], how: How) -> Any:
    """Run the coroutine function at ``path``."""
    one = _Run(self.request, path, args, kwargs, how)
    await task_started.asend(sender=one.sender, task_result=one.result)
    try:
        value = one.succeed(await one.task.acall(*one.args, **one.kwargs))
    except BaseException as error:
        one.fail(error)
        await task_finished.asend(sender=one.sender, task_result=one.result)
        raise
    await task_finished.asend(sender=one.sender, task_result=one.result)
    return value
