"""Turns the app of a project that cannot be edited into one of taskapp: ``CELERY_LOADER=taskapp.loader:Loader``.

Celery gives each app a loader of the class that this variable names. This one turns its app, of stock Celery, into
``taskapp.Celery`` when the configuration is first read, which is before any task type is usable.
"""

from __future__ import annotations

from typing import Any

import celery as stock

from taskapp.app.application import Celery
from taskapp.app.loader import TaskLoader
from taskapp.errors.apps import CannotBecome

__all__ = ["Loader"]

REPLACED = ("amqp_cls", "control_cls", "events_cls", "log_cls")
"""Names of the classes of an app's parts, which its constructor copies into the app."""
PARTS = ("amqp", "control", "events", "log", "Task", "AsyncResult", "GroupResult", "ResultSet", "Worker", "Beat")
"""Parts that an app creates once."""


class Loader(TaskLoader):
    """Loads a project's modules and configuration like Celery's, for an app that becomes taskapp's."""

    @property
    def conf(self) -> Any:
        """The project's configuration object; Celery reads it once, when it puts the configuration together."""
        become(self.app)
        return super().conf


def become(app: Any) -> None:
    """Turn ``app``, of stock Celery, into an app of taskapp.

    Raises:
        CannotBecome: It is of a class derived from stock Celery's.
    """
    if isinstance(app, Celery):
        return
    if type(app) is not stock.Celery:
        raise CannotBecome(type(app))
    app.__class__ = Celery
    for name in REPLACED:
        if getattr(app, name) == getattr(stock.Celery, name):
            setattr(app, name, getattr(Celery, name))
    for name in PARTS:
        vars(app).pop(name, None)
    ours: Any = app
    ours.settle_in()
