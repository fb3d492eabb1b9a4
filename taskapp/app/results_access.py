"""An app that gives access to results."""

from __future__ import annotations

import threading
from typing import Any

from celery.app import backends
from kombu.utils.objects import cached_property

from taskapp.app.configured import Configured
from taskapp.background import PerProcess

BACKENDS = {
    "redis": "taskapp.results.backend:RedisBackend",
    "rediss": "taskapp.results.backend:RedisBackend",
    "sentinel": "taskapp.results.backend:SentinelBackend",
    "disabled": "taskapp.results.absent:NoResults",
}
"""Result backends that replace Celery's; a loader may name others."""

_making_backend = PerProcess(threading.RLock)
_backend_by_url: Any = backends.by_url  # the stubs have another return type


class ResultsAccess(Configured):
    """A Celery app with taskapp's results."""

    _backend: Any
    _backend_cache: Any
    _local: threading.local

    @cached_property
    def AsyncResult(self) -> Any:  # noqa: N802 - Celery's name
        """The class of a task's result."""
        return self.subclass_with_self("taskapp.client.results:AsyncResult")  # type: ignore[arg-type]  # the same

    @cached_property
    def ResultSet(self) -> Any:  # noqa: N802 - the same
        """The class of a set of results."""
        return self.subclass_with_self("taskapp.client.results:ResultSet")  # type: ignore[arg-type]  # the same

    @cached_property
    def GroupResult(self) -> Any:  # noqa: N802 - the same
        """The class of a group's results."""
        return self.subclass_with_self("taskapp.client.results:GroupResult")  # type: ignore[arg-type]  # the same

    def forget_backend(self) -> None:
        """Make the next use of results open new connections."""
        self._backend_cache = None
        self._local.__dict__.pop("backend", None)

    def keeps_results_in_sql(self) -> bool:
        """Return whether a backend that does was made here."""
        made = (self._backend_cache, getattr(self._local, "backend", None))
        return any(type(each).__module__.startswith("celery.backends.database") for each in made)

    def _get_backend(self) -> Any:
        from taskapp.results.literal_dicts import writing_literals

        self.find_broker()
        with _making_backend():
            # Celery lets each thread that asks first make one.
            if self._backend is None:
                self.loader.override_backends = {**BACKENDS, **self.loader.override_backends}
                given, url = _backend_by_url(self.backend_cls or self.conf.result_backend, self.loader)
                self._backend = writing_literals(given)(app=self, url=url)
            return self._backend
