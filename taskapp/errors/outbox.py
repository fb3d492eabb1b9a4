"""Errors of the outbox: tasks submitted in a transaction of the user's own database."""

from __future__ import annotations

from taskapp.errors import TaskappError
from taskapp.errors.extras import MissingExtra


class OutboxPackageMissing(MissingExtra):
    """The package for the database is missing."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__("the outbox", package, extra or "outbox")


class OutboxNotSet(TaskappError):
    """No database was named."""

    def __init__(self) -> None:
        super().__init__(
            "no outbox is named; add --url postgresql://user:password@host/name, or set TASKAPP_OUTBOX_URL, or "
            "DJANGO_SETTINGS_MODULE for the databases of a Django project"
        )


class BadOutboxURL(TaskappError):
    """A URL does not name a database that can hold an outbox."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"there cannot be an outbox at {url!r}: {why}; use sqlite:////path/to/file, "
            "postgresql://user:password@host/name, mysql://user:password@host/name or django://default"
        )


class OutboxAway(TaskappError):
    """The database of the outbox cannot be used."""

    def __init__(self, name: str, reason: object) -> None:
        lines = str(reason).strip().splitlines()
        super().__init__(f"the outbox at {name!r} cannot be used: {lines[0] if lines else repr(reason)}")


class NoOutboxTable(TaskappError):
    """The database has no table for the outbox."""

    def __init__(self, name: str, remedy: str) -> None:
        super().__init__(f"the database {name!r} has no table taskapp_outbox; {remedy}")


class UnsupportedOutboxDatabase(TaskappError):
    """Relays cannot work on this database system."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the outbox does not work on {name}: {why}; use PostgreSQL, MariaDB 10.6, MySQL 8 or SQLite")


class NotInOutbox(TaskappError):
    """The outbox holds no refused task with this id."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no refused task {task_id!r} in the outbox; see: taskapp outbox list")


class NotAnAppOfTaskapp(TaskappError):
    """A task belongs to an app of stock Celery."""

    def __init__(self, name: str, app: object) -> None:
        super().__init__(
            f"{name!r} belongs to {app!r}, which is not an app of taskapp; an outbox submits only tasks of such apps"
        )


class CannotBeInOutbox(TaskappError):
    """No row can hold what is submitted."""

    def __init__(self, what: object, why: str) -> None:
        super().__init__(f"{what!r} cannot be submitted through an outbox: {why}")
