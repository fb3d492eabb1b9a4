"""The base class of task types in a Django project."""

from __future__ import annotations

from celery.contrib.django.task import DjangoTask as _Stock

from taskapp.app import task


class DjangoTask(_Stock, task.Task):  # type: ignore[type-arg]  # Celery's own class has no parameters
    """``Task`` with ``delay_on_commit`` and ``apply_async_on_commit``, which submit when the transaction commits."""

    abstract = True
