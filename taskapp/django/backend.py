"""The backend for Django's tasks.

TASKS = {"default": {"BACKEND": "taskapp.django.TaskBackend", "OPTIONS": {"app": "proj.celery:app"}}}

enqueue ─► taskapp.django.run ─► queue ─► node: task_started ─► the function ─► task_finished
                                            └─────────► get_result ◄─────────────────┘
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from taskapp.app.application import Celery
from taskapp.client.protocol import new_id
from taskapp.django.checking import examine
from taskapp.django.priorities import level_of
from taskapp.django.reading import ended, read_result
from taskapp.django.running import COROUTINE, FUNCTION, How, result_of
from taskapp.django.tasks_api import DEFAULT_QUEUE_NAME, BaseTaskBackend, task_enqueued


class TaskBackend(BaseTaskBackend):
    """Runs Django's tasks on nodes.

    Options:
        app: The Celery app, as for ``celery -A``; without it the default app, which is the project's.

    The queue ``default`` is the app's default queue, unless the app declares one of that name; other names are queues
    of the app. For priorities see ``priorities``.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.params = params
        self._app: Celery | None = None

    @property
    def app(self) -> Celery:
        """The Celery app.

        Raises:
            ImproperlyConfigured: It cannot be imported, or is not one of taskapp's.
        """
        if self._app is None:
            self._app = _find(self.options.get("app"), self.alias)
        return self._app

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Submit a task; return its ``TaskResult``.

        Raises:
            InvalidTask: The backend cannot run it.
            TypeError: An argument cannot be JSON; nothing was queued.
            TaskappError: It could not be queued, as for ``delay()``.
        """
        result, task_type, arguments, options = self._prepare(task, args, kwargs)
        if self.app.conf.task_always_eager:  # it runs in the next line
            task_enqueued.send(type(self), task_result=result)
            return ended(self, result, task_type.apply_async(arguments, **options))
        task_type.apply_async(arguments, **options)
        task_enqueued.send(type(self), task_result=result)
        return result

    async def aenqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Submit a task from a coroutine, without blocking the event loop; see ``enqueue``."""
        result, task_type, arguments, options = self._prepare(task, args, kwargs)
        if self.app.conf.task_always_eager:
            await task_enqueued.asend(type(self), task_result=result)
            # A function runs on Django's thread, in its transactions; a coroutine, which may need it, does not.
            run = sync_to_async(task_type.apply_async, thread_sensitive=not iscoroutinefunction(task.func))
            return ended(self, result, await run(arguments, **options))
        await task_type.aapply_async(arguments, **options)
        await task_enqueued.asend(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return the ``TaskResult`` of a task.

        Takes a few milliseconds, but about a second per million tasks that wait if the task itself waits. On a broker
        other than Redis, tasks that wait are not found.

        Raises:
            TaskResultDoesNotExist: There is neither a message nor a result of such a task.
        """
        return read_result(self, str(result_id))

    def check(self, **kwargs: Any) -> Iterator[checks.CheckMessage]:
        """Check the entry in ``TASKS`` and the app; sends nothing."""
        yield from super().check(**kwargs)
        yield from examine(self)

    def _prepare(self, task: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
        self.validate_task(task)
        now, run_after = datetime.now(UTC), task.run_after
        if run_after is not None and timezone.is_naive(run_after):
            run_after = timezone.make_aware(run_after)
        how: How = {
            "backend": self.alias, "priority": task.priority, "queue_name": task.queue_name,
            "run_after": task.run_after and task.run_after.isoformat(), "enqueued_at": now.isoformat(),
        }  # fmt: skip
        result = result_of(task, new_id(), args, kwargs, how)
        options = {
            "task_id": result.id, "priority": level_of(task.priority), "shadow": task.module_path,
            "argsrepr": repr(tuple(result.args)), "kwargsrepr": repr(result.kwargs),
        }  # fmt: skip
        if task.queue_name != DEFAULT_QUEUE_NAME or task.queue_name in self.app.amqp.queues:
            options["queue"] = task.queue_name
        if run_after is not None:
            options["eta"] = run_after
        name = COROUTINE if iscoroutinefunction(task.func) else FUNCTION
        return result, self.app.tasks[name], (task.module_path, result.args, result.kwargs, how), options


def _find(name: str | None, alias: str) -> Celery:
    where = f"TASKS[{alias!r}]['OPTIONS']['app']"
    if name is None:
        from taskapp.celery import current

        return current()
    from celery.app.utils import find_app

    try:
        found: Any = find_app(name)
    except Exception as error:
        raise ImproperlyConfigured(f"{where}: cannot load {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Celery):
        raise ImproperlyConfigured(
            f"{where}: {name!r} is not an app of taskapp; create it with `from taskapp import Celery`"
        )
    return found
