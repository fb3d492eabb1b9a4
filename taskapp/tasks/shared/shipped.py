"""Registers the task types that ship with every app of taskapp, and with no other.

Celery's ``@shared_task`` would add them to apps of stock Celery in the same process, too. As there, the name of a type
in its module stands for that of the app which is the default of all threads: a project's own, or else the one that
ships.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from celery.local import Proxy

from taskapp.app.application import Celery, finalized_apps
from taskapp.celery import current
from taskapp.celery_internals import on_app_finalize

if TYPE_CHECKING:
    from taskapp.app.task_types import shared_task as shipped

    __all__ = ["shipped"]
else:

    def shipped(**options: Any) -> Callable[[Callable[..., Any]], Any]:
        """Return a decorator for a function that is a task type with these ``options`` in each app of taskapp."""

        def register(function: Callable[..., Any]) -> Any:
            made: WeakKeyDictionary[Celery, Any] = WeakKeyDictionary()

            def add(app: Any) -> None:
                if isinstance(app, Celery) and app not in made:
                    made[app] = app.task(shared=False, lazy=False, **options)(function)

            def of_current_app() -> Any:
                app = current()
                app.finalize(auto=True)
                return made[app]

            on_app_finalize(add)
            for app in finalized_apps():
                add(app)
            return Proxy(of_current_app, name=function.__name__, __doc__=function.__doc__)

        return register
