"""Django's interface for background tasks: that of Django 6, else that of the package ``django-tasks``."""

from __future__ import annotations

from typing import Any

from django.utils.module_loading import import_string

from taskapp.errors.django import NoTasksInterface


def _find() -> tuple[str, Any]:
    for package in ("django.tasks", "django_tasks"):
        try:
            return package, import_string(f"{package}.task_backends")
        except ImportError:
            continue
    raise NoTasksInterface


PACKAGE, task_backends = _find()


def _named(*names: str) -> Any:
    """Return the first of these objects that exists."""
    for name in names:
        try:
            return import_string(name)
        except ImportError:
            continue
    raise NoTasksInterface


BaseTaskBackend: Any = _named(f"{PACKAGE}.backends.base.BaseTaskBackend")
Task: Any = _named(f"{PACKAGE}.base.Task")
TaskContext: Any = _named(f"{PACKAGE}.base.TaskContext")
TaskError: Any = _named(f"{PACKAGE}.base.TaskError")
TaskResult: Any = _named(f"{PACKAGE}.base.TaskResult")
TaskResultStatus: Any = _named(f"{PACKAGE}.base.TaskResultStatus")
DEFAULT_QUEUE_NAME: str = _named(f"{PACKAGE}.base.DEFAULT_TASK_QUEUE_NAME")
InvalidTask: Any = _named(f"{PACKAGE}.exceptions.InvalidTask", f"{PACKAGE}.exceptions.InvalidTaskError")
TaskResultDoesNotExist: Any = _named(f"{PACKAGE}.exceptions.TaskResultDoesNotExist")
normalize_json: Any = _named("django.utils.json.normalize_json", f"{PACKAGE}.utils.normalize_json")
task_enqueued: Any = _named(f"{PACKAGE}.signals.task_enqueued")
task_started: Any = _named(f"{PACKAGE}.signals.task_started")
task_finished: Any = _named(f"{PACKAGE}.signals.task_finished")
