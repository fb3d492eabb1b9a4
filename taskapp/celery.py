"""The Celery application that ships: ``celery -A taskapp worker`` finds ``app`` here.

Projects with an app of their own do not need it. Importing this module reads no settings and opens no connection; both
happen on the first use of ``app.conf``.
"""

from __future__ import annotations

from typing import Any

from taskapp.app.application import Celery, is_default_app_free
from taskapp.celery_internals import default_app


class ShippedApp(Celery):
    """The app of ``celery -A taskapp``, with the task types, queues and canary that ship; see ``Settings``."""

    ships_task_types = True


def current() -> Celery:
    """Return the default app if it is one of taskapp's, else the one that ships."""
    found: Any = default_app()
    return found if isinstance(found, Celery) else app


app = ShippedApp("taskapp", set_as_current=is_default_app_free())
