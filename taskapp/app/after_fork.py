"""What a forked process lets go of: the connections it inherited, of our app alone.

Parent and child on one socket read each other's replies. Celery and kombu have registered what is to be done, but only
billiard's and Python's own forks run it; gunicorn and uwsgi fork plainly.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu import pools

from taskapp.celery_internals import after_forkers


def start_over(app: Any) -> None:
    """Let go of what ``app`` has inherited; what other apps have stays as Celery leaves it."""
    for function, thing in after_forkers():
        if _belongs(thing, app):
            with suppress(Exception):  # as where they are run else: the others come nevertheless
                function(thing)
    for group in (pools.connections, pools.producers):
        # By the keys it has: looked up by connection, they would be computed anew.
        for key in [key for key, pool in group.items() if _belongs(pool, app)]:
            dict.pop(group, key)
    app.forget_backend()


def _belongs(thing: Any, app: Any) -> bool:
    """Return whether ``thing`` is ``app``, or something of it."""
    if thing is app or getattr(thing, "app", None) is app or type(thing).__module__.startswith("taskapp."):
        return True
    if type(thing).__module__.startswith("celery.backends.database"):
        return bool(app.keeps_results_in_sql())  # its sessions are made by one object for all apps
    # A pool belongs to whom its connections belong to, and is made from one.
    made_from = getattr(thing, "connections", None) or getattr(thing, "connection", None)
    return made_from is not None and _belongs(made_from, app)
