"""Errors of an app that cannot be loaded, of its modules, and of the server it would use."""

from __future__ import annotations

from taskapp.errors import TaskappError


class CannotBecome(TaskappError):
    """An app of a class of the project's own cannot be turned into one of taskapp."""

    def __init__(self, kind: type) -> None:
        super().__init__(
            f"CELERY_LOADER turns only apps of celery.Celery itself into taskapp's; derive {kind.__module__}."
            f"{kind.__qualname__} from taskapp.Celery instead"
        )


class ModuleNotImported(TaskappError):
    """A module of task types cannot be imported; ``setting`` is the setting that lists it."""

    def __init__(self, module: str, setting: str, reason: str, place: str, remedy: str) -> None:
        self.module = module
        at = f" ({place})" if place else ""
        super().__init__(f"the module {module!r}, named in {setting}, cannot be imported: {reason}{at}; {remedy}")


class EvictingBroker(TaskappError):
    """Redis is configured to evict keys, and would delete queues when it is full."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"Redis would delete queues when it is full (maxmemory-policy is {policy}); run "
            "'redis-cli CONFIG SET maxmemory-policy noeviction' and set the same in redis.conf"
        )
