"""Private names of Celery and kombu that the kit alone uses; ``taskapp.celery_internals`` explains the tables."""

from __future__ import annotations

import threading
from typing import Any

from celery import _state

Table = dict[str, dict[str, str]]

ACCESSED: Table = {
    "celery._state": {"_tls": "the app of a thread, which a test replaces and puts back"},
    "celery.app.base:Celery": {
        "_pool": "the pool of connections, which a test replaces and puts back",
        "_backend_cache _local": "the same for result backends",
    },
    "celery.app.amqp:AMQP": {"_producer_pool": "the same for producers"},
}

INHERITED: Table = {
    "kombu.transport.virtual.base:AbstractChannel": {
        "_delete _has_queue _new_queue _purge _put _size": "the engine in memory owns the queues of a test",
    },
}


def app_parts(app: Any) -> tuple[Any, Any, Any]:
    """Return the pools of connections and producers of ``app``, and its result backend; ``None``: not made yet."""
    return app._pool, app.amqp._producer_pool, app._backend_cache


def set_app_parts(app: Any, pool: Any, producers: Any, backend: Any) -> None:
    """Set what ``app_parts`` returns; drop backends that threads have for themselves."""
    app._pool, app.amqp._producer_pool, app._backend_cache = pool, producers, backend
    app._local = threading.local()


def current_app_of_thread() -> tuple[Any, Any]:
    """Return the app that was made current in this thread, and the one of threads without; ``None``: there is none."""
    state: Any = _state
    return state._tls.current_app, state.default_app


def set_current_apps(current: Any, default: Any) -> None:
    """Set what ``current_app_of_thread`` returns."""
    state: Any = _state
    state._tls.current_app, state.default_app = current, default
