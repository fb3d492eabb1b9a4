"""Reports a result server that cannot be reached in one sentence, where redis-py leaves its address and remedy out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskapp.redis.outage import SERVER_GONE, ResultServerAway
from taskapp.urls import masked

# Mixed into two backends of Celery, which have no useful common base.
_Mixin: Any = object


class Reaching(_Mixin):
    """Makes Celery's result backend raise ``ResultServerAway`` from its commands."""

    def get(self, key: Any) -> Any:
        """Return the value stored under ``key``; ``None`` if there is none.

        Raises:
            ResultServerAway: The server cannot be reached.
        """
        return self._reach(super().get, key)

    def mget(self, keys: Any) -> Any:
        """Return the values stored under ``keys``; errors are those of ``get``."""
        return self._reach(super().mget, keys)

    def set(self, key: Any, value: Any, *args: Any, **options: Any) -> Any:
        """Store a value; errors are those of ``get``."""
        return self._reach(super().set, key, value, *args, **options)

    def delete(self, key: Any) -> Any:
        """Delete a value; errors are those of ``get``."""
        return self._reach(super().delete, key)

    def _reach(self, command: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except ResultServerAway:
            raise
        except SERVER_GONE as error:
            away = ResultServerAway(masked(self.url or ""), self._setting(), error)
        # Outside of ``except``: redis-py's traceback shows how it connects, several times.
        raise away

    def _setting(self) -> str:
        """Return the name of the setting that holds the address."""
        filled = getattr(self.app, "filled", None)
        given = filled.given if filled is not None else {}
        for field in ("result_url", "broker_url"):
            if field in given:
                return str(given[field].name)
            if filled is not None and field in filled.settings.chosen:
                return f"TASKAPP_{field.upper()}"
        return "result_backend"
