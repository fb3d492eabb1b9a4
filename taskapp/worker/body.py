"""What is put around a task type's own function: arguments checked, a returned model dumped, coroutines retried."""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from celery.exceptions import Ignore, Retry
from celery.utils.time import get_exponential_backoff_interval
from pydantic import BaseModel

Run = Callable[..., Any]


def checked(task_type: Any, run: Run) -> Run:
    """Return ``run`` with its arguments checked and a returned model as JSON."""
    if iscoroutinefunction(run):

        @functools.wraps(run)
        async def run_checked(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = _to_python(task_type, args, kwargs)
            return _plain(await run(*args, **kwargs))

        return _autoretried(task_type, run_checked)

    @functools.wraps(run)
    def run_checked_here(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _to_python(task_type, args, kwargs)
        return _plain(run(*args, **kwargs))

    return run_checked_here


def _to_python(task_type: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not (payload := task_type.payload()):
        return args, kwargs
    itself, given = args[: task_type._is_method], args[task_type._is_method :]
    values, kwargs = payload.to_python(given, kwargs)
    return (*itself, *values), kwargs


def _plain(result: Any) -> Any:
    return result.model_dump(mode="json") if isinstance(result, BaseModel) else result


def _autoretried(task_type: Any, run: Run) -> Run:
    """Return the coroutine function ``run`` with what ``autoretry_for`` asks for; Celery's own does not await."""
    retried = tuple(getattr(task_type, "autoretry_for", ()))
    if not retried:
        return run
    never = (Ignore, Retry, *getattr(task_type, "dont_autoretry_for", ()))

    @functools.wraps(run)
    async def run_autoretried(*args: Any, **kwargs: Any) -> Any:
        try:
            return await run(*args, **kwargs)
        except never:
            raise
        except retried as error:
            task = task_type._get_app().tasks[task_type.name]
            options = dict(getattr(task, "retry_kwargs", {}))
            if backoff := float(getattr(task, "retry_backoff", False)):
                options["countdown"] = get_exponential_backoff_interval(
                    factor=int(max(1.0, backoff)),
                    retries=task.request.retries,
                    maximum=int(getattr(task, "retry_backoff_max", 600)),
                    full_jitter=getattr(task, "retry_jitter", True),
                )
            raise task.retry(exc=error, **options) from error

    return run_autoretried
