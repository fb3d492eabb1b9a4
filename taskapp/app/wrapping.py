"""Wraps a task type's function: checks its arguments, dumps a returned model, retries it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from celery.exceptions import Ignore, Retry
from celery.utils.time import get_exponential_backoff_interval

from taskapp.app.annotations import is_model
from taskapp.app.retries import backoff_for

Run = Callable[..., Any]


def checked(task_type: Any, run: Run) -> Run:
    """Return a wrapper of ``run`` that checks arguments, dumps a returned model, and retries for ``autoretry_for``.

    Celery's own automatic retry neither awaits coroutines nor distinguishes concurrent runs.
    """
    retried: tuple[Any, ...] = (*getattr(task_type, "autoretry_for", ()), *task_type.declared_retries.on)
    never: tuple[Any, ...] = (Ignore, Retry, *getattr(task_type, "dont_autoretry_for", ()))
    if iscoroutinefunction(run):

        @functools.wraps(run)
        async def run_checked(*args: Any, **kwargs: Any) -> Any:
            try:
                args, kwargs = _to_python(task_type, args, kwargs)
                return _plain(await run(*args, **kwargs))
            except never:
                raise
            except retried as error:
                raise _retry(task_type, error) from error

        return run_checked

    @functools.wraps(run)
    def run_checked_here(*args: Any, **kwargs: Any) -> Any:
        try:
            args, kwargs = _to_python(task_type, args, kwargs)
            return _plain(run(*args, **kwargs))
        except never:
            raise
        except retried as error:
            raise _retry(task_type, error) from error

    return run_checked_here


def _to_python(task_type: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not (payload := task_type.payload()):
        return args, kwargs
    itself, given = args[: task_type._is_method], args[task_type._is_method :]
    values, kwargs = payload.to_python(given, kwargs)
    return (*itself, *values), kwargs


def _plain(result: Any) -> Any:
    return result.model_dump(mode="json") if is_model(result) else result


def _retry(task_type: Any, error: BaseException) -> BaseException:
    """Retry the run that failed with ``error``, after the type's backoff; raises what Celery's ``retry`` raises."""
    task = task_type.app.tasks[task_type.name]
    options = dict(getattr(task, "retry_kwargs", {}))
    if (own := backoff_for(task, error)) is not None:
        options.pop("countdown", None)  # ``retry`` asks ``own``
        if own.max_retries is not None:
            options["max_retries"] = own.max_retries
    elif backoff := float(getattr(task, "retry_backoff", False)):
        options["countdown"] = get_exponential_backoff_interval(
            factor=int(max(1.0, backoff)),
            retries=task.request.retries,
            maximum=int(getattr(task, "retry_backoff_max", 600)),
            full_jitter=getattr(task, "retry_jitter", True),
        )
    if (asked := getattr(task.request, "asked_max_retries", None)) is not None:
        options["max_retries"] = asked
    return task.retry(exc=error, **options)  # type: ignore[no-any-return]  # untyped
