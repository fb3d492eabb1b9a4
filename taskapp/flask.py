"""taskapp in a Flask application: each task runs in the application's context. docs/flask.md has examples."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from taskapp.app.application import Celery
from taskapp.app.task import Task

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["Taskapp", "celery_init_app"]


class Taskapp:
    """The extension object, for applications that create their extensions before they exist."""

    def __init__(self, app: Flask | None = None) -> None:
        """Create the extension; with ``app``, also call ``init_app``."""
        self._celery: Celery | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> Celery:
        """Create the Celery app of ``app``, see ``celery_init_app``."""
        self._celery = celery_init_app(app)
        return self._celery

    @property
    def celery(self) -> Celery:
        """The Celery app.

        Raises:
            RuntimeError: ``init_app`` has not been called.
        """
        if self._celery is None:
            raise RuntimeError("Taskapp.init_app(app) has not been called yet; call it where the Flask app is created")
        return self._celery


def celery_init_app(app: Flask) -> Celery:
    """Return a Celery app for ``app``, which is then ``app.extensions["celery"]``.

    It takes its configuration from ``app.config["CELERY"]``: Celery's settings, and those of taskapp as
    ``taskapp_…``. It becomes the default app, so that ``@shared_task`` belongs to it. Each task runs in the context of
    ``app``: functions, coroutines and tasks in child processes.
    """

    class FlaskTask(Task):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            if iscoroutinefunction(self.run) and not self.request.is_eager:
                return _in_context(app, super().__call__, args, kwargs)
            with app.app_context():
                return super().__call__(*args, **kwargs)

    celery = Celery(app.name, task_cls=FlaskTask)
    celery.config_from_object(app.config.get("CELERY") or {})
    celery.set_default()
    app.extensions["celery"] = celery
    return celery


async def _in_context(app: Flask, call: Callable[..., Coroutine[Any, Any, Any]], args: Any, kwargs: Any) -> Any:
    with app.app_context():
        return await call(*args, **kwargs)
