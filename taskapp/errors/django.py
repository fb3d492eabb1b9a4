"""Errors of Django projects."""

from __future__ import annotations

from typing import Self

from taskapp.errors import PermanentError, TaskappError


class NoTasksInterface(TaskappError):
    """``taskapp.django.TaskBackend`` is used where Django has no interface for background tasks."""

    def __init__(self) -> None:
        super().__init__(
            "this Django has no django.tasks; install Django 6, or the same interface for older ones: "
            "pip install django-tasks"
        )


class NotADjangoTask(PermanentError):
    """A message names something that is not a function decorated with ``@task``."""

    @classmethod
    def at(cls, path: object, reason: str) -> Self:
        """Return the error for the import ``path``."""
        return cls(
            f"{path!r} is no function decorated with @task on this node: {reason}; deploy it to the nodes, "
            "then replay the message: taskapp dead replay"
        )


class NoDjangoStore(TaskappError):
    """``result_backend`` names a store of ``django-celery-results`` that this project does not have."""

    def __init__(self, setting: str, name: str, reason: str, remedy: str) -> None:
        super().__init__(
            f"setting {setting} is {name!r}, a store of django-celery-results, but {reason}; {remedy}, "
            "or remove the setting: results are then kept in the broker's Redis"
        )
