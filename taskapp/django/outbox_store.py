"""The outbox in a database of a Django project."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.models import Count, F, Min

from taskapp.django.models import OutboxMessage
from taskapp.errors.outbox import NoOutboxTable, OutboxAway, UnsupportedOutboxDatabase
from taskapp.outbox.rows import (
    CLAIM_SECONDS,
    CLAIMED_ROWS,
    TABLE,
    ListedRow,
    OutboxBacklog,
    OutboxRow,
    Push,
    PushOutcome,
    cut,
    now_us,
)

MIGRATE = "run: python manage.py migrate taskapp"


class DjangoStore:
    """See ``rows.OutboxStore``. Any thread may use it; each has its own connection.

    Args:
        alias: Name of the database in ``DATABASES``.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias

    @property
    def name(self) -> str:
        """The name of the database in the settings."""
        return self._alias

    def close(self) -> None:
        """Close the connection of this thread."""
        connections[self._alias].close()

    # --- relaying ---------------------------------------------------------------------------------

    def relay(self, push: Push, ids: Sequence[str] | None = None) -> tuple[int, PushOutcome]:
        """Claim rows, push them and delete the pushed ones, see ``rows.OutboxStore.relay``."""
        with self._mapped():
            if self._locks_rows():
                with transaction.atomic(using=self._alias):
                    rows = self._read(cut(list(self._wanted(ids).select_for_update(skip_locked=True))))
                    outcome = push(rows) if rows else PushOutcome()
                    self._settle(rows, outcome)
                return len(rows), outcome
            rows = self._lease(ids)
            outcome = push(rows) if rows else PushOutcome()
            with transaction.atomic(using=self._alias):
                self._settle(rows, outcome)
            return len(rows), outcome

    def _locks_rows(self) -> bool:
        connection = connections[self._alias]
        if connection.vendor == "sqlite":
            return False
        if not connection.features.has_select_for_update_skip_locked:
            raise UnsupportedOutboxDatabase(connection.display_name, "it has no SKIP LOCKED")
        return True

    @property
    def _objects(self) -> Any:
        return OutboxMessage.objects.using(self._alias)

    def _wanted(self, ids: Sequence[str] | None) -> Any:
        found = self._objects.filter(refused=0)
        if ids is not None:
            found = found.filter(pk__in=ids)
        return found.order_by("created_us").values_list("pk", "size")[:CLAIMED_ROWS]

    def _lease(self, ids: Sequence[str] | None) -> list[OutboxRow]:
        now = now_us()
        until = now + CLAIM_SECONDS * 1_000_000
        free = self._objects.filter(refused=0, claimed_until_us__lt=now)
        if ids is not None:
            free = free.filter(pk__in=ids)
        taken = cut(list(free.order_by("created_us").values_list("pk", "size")[:CLAIMED_ROWS]))
        if not taken:
            return []
        # Another relay may have been faster since. The time of the end of the lease identifies this one.
        self._objects.filter(pk__in=taken, claimed_until_us__lt=now).update(claimed_until_us=until)
        return self._read(list(self._objects.filter(pk__in=taken, claimed_until_us=until).values_list("pk", flat=True)))

    def _read(self, ids: Sequence[str]) -> list[OutboxRow]:
        if not ids:
            return []
        found = self._objects.filter(pk__in=ids).order_by("created_us")
        return [OutboxRow(*row) for row in found.values_list("pk", "created_us", "task", "queue", "message")]

    def _settle(self, rows: Sequence[OutboxRow], outcome: PushOutcome) -> None:
        if outcome.pushed:
            self._objects.filter(pk__in=list(outcome.pushed)).delete()
        for identity, error in outcome.refused:
            refused = self._objects.filter(pk=identity)
            refused.update(refused=1, attempts=F("attempts") + 1, error=error, claimed_until_us=0)
        ended = {*outcome.pushed, *(identity for identity, _ in outcome.refused)}
        if left := [row.id for row in rows if row.id not in ended]:
            self._objects.filter(pk__in=left, claimed_until_us__gt=0).update(claimed_until_us=0)

    # --- for people -------------------------------------------------------------------------------

    def rows(self, *, refused_only: bool, limit: int) -> list[ListedRow]:
        """Return rows, oldest first."""
        columns = ("pk", "created_us", "task", "queue", "size", "refused", "attempts", "error")
        found = self._objects.filter(refused=1) if refused_only else self._objects.all()
        with self._mapped():
            listed = list(found.order_by("created_us").values_list(*columns)[:limit])
        return [
            ListedRow(pk, created_us, task, queue, size, bool(refused), attempts, error or "")
            for pk, created_us, task, queue, size, refused, attempts, error in listed
        ]

    def backlog(self) -> OutboxBacklog:
        """Count the rows."""
        with self._mapped():
            waiting = self._objects.filter(refused=0).aggregate(count=Count("pk"), oldest_us=Min("created_us"))
            refused = self._objects.filter(refused=1).count()
        oldest_us = waiting["oldest_us"]
        return OutboxBacklog(waiting["count"], max(time.time() - oldest_us / 1e6, 0.0) if oldest_us else 0.0, refused)

    def retry(self, ids: Sequence[str] | None) -> int:
        """Let refused rows wait again."""
        with self._mapped():
            return int(self._refused(ids).update(refused=0))

    def remove(self, ids: Sequence[str]) -> int:
        """Delete refused rows."""
        with self._mapped():
            return int(self._refused(ids).delete()[0])

    def _refused(self, ids: Sequence[str] | None) -> Any:
        found = self._objects.filter(refused=1)
        return found if ids is None else found.filter(pk__in=ids)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (DatabaseError, InterfaceError) as error:
            if self._has_no_table():
                raise NoOutboxTable(self.name, MIGRATE) from error
            self.close()  # a broken connection; the next call opens another
            raise OutboxAway(self.name, error) from error

    def _has_no_table(self) -> bool:
        try:
            connection = connections[self._alias]
            with connection.cursor() as cursor:
                return TABLE not in connection.introspection.table_names(cursor)
        except (DatabaseError, InterfaceError):
            return False
