"""Drops the connections of one app that a forked process inherited.

Parent and child on one socket would read each other's replies. Celery and kombu register hooks for that, but only
billiard's and Python's own forks run them; gunicorn and uwsgi fork directly.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu import pools

from taskapp.celery_internals import after_forkers


def start_over(app: Any) -> None:
    """Drop the connections that ``app`` has inherited; those of other apps stay as Celery leaves them."""
    for function, thing in after_forkers():
        if _belongs(thing, app):
            with suppress(Exception):  # like Celery: one failing hook must not stop the others
                function(thing)
    for group in (pools.connections, pools.producers):
        # By existing keys: a lookup by connection would compute the key again.
        for key in [key for key, pool in group.items() if _belongs(pool, app)]:
            dict.pop(group, key)
    app.forget_backend()


def _belongs(thing: Any, app: Any) -> bool:
    """Return whether ``thing`` is ``app`` or belongs to it."""
    if thing is app or getattr(thing, "app", None) is app or type(thing).__module__.startswith("taskapp."):
        return True
    if type(thing).__module__.startswith("celery.backends.database"):
        return bool(app.keeps_results_in_sql())  # one object creates the sessions of all apps
    # A pool belongs to the owner of the connection it was created from.
    made_from = getattr(thing, "connections", None) or getattr(thing, "connection", None)
    return made_from is not None and _belongs(made_from, app)
