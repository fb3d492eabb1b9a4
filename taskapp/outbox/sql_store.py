"""The outbox in a database that SQLAlchemy reaches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, delete, func, inspect, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from taskapp.errors.outbox import (
    BadOutboxURL,
    NoOutboxTable,
    OutboxAway,
    OutboxPackageMissing,
    UnsupportedOutboxDatabase,
)
from taskapp.outbox.rows import (
    CLAIM_SECONDS,
    CLAIMED_ROWS,
    ListedRow,
    OutboxBacklog,
    OutboxRow,
    Push,
    PushOutcome,
    cut,
    now_us,
)
from taskapp.outbox.tables import metadata, table
from taskapp.sql import CONNECT_SECONDS, Errors, engine_for, mapped, shown

ERRORS = Errors(BadOutboxURL, OutboxPackageMissing, OutboxAway)
LOCKING = ("postgresql", "mysql", "mariadb")
"""Databases that lock rows and pass over those locked by others."""
SUPPORTED = (*LOCKING, "sqlite")
SKIPS_SINCE = {True: (10, 6), False: (8, 0, 1)}
"""First version with SKIP LOCKED of MariaDB (True) and MySQL (False)."""
CREATE = "run: taskapp outbox create --url …, or a migration with taskapp.outbox.sqlalchemy.metadata"
_c = table.c


class SqlStore:
    """See ``rows.OutboxStore``. Any thread may use it.

    Args:
        engine: Where the table is.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def at(cls, url: str, connect_seconds: int = CONNECT_SECONDS) -> SqlStore:
        """Return the store at ``url``, without connecting, which may take ``connect_seconds``.

        Raises:
            BadOutboxURL: The URL is malformed, or names an unsupported database.
            OutboxPackageMissing: The driver for this database is not installed.
        """
        return cls(engine_for(url, ERRORS, connect_seconds=connect_seconds))

    @property
    def name(self) -> str:
        """The URL without its password."""
        return shown(self.engine.url)

    @property
    def locks_rows(self) -> bool:
        """Whether rows are locked during their push; else they are claimed for ``CLAIM_SECONDS``."""
        return self.engine.dialect.name in LOCKING

    def close(self) -> None:
        """Do nothing: connections are in the engine's pool whenever none is in use."""

    def create(self) -> None:
        """Create the table if it does not exist."""
        with mapped(self.engine, ERRORS):
            metadata.create_all(self.engine)

    # --- relaying ---------------------------------------------------------------------------------

    def relay(self, push: Push, ids: Sequence[str] | None = None) -> tuple[int, PushOutcome]:
        """Claim rows, push them and delete the pushed ones, see ``rows.OutboxStore.relay``."""
        with self._begun() as connection:
            rows = claim(connection, ids)
            if not rows or self.locks_rows:
                outcome = push(rows) if rows else PushOutcome()
                settle(connection, rows, outcome)
                return len(rows), outcome
        # The claim is committed: SQLite lets nobody else write while a transaction does.
        outcome = push(rows)
        with self._begun() as connection:
            settle(connection, rows, outcome)
        return len(rows), outcome

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """Begin a transaction that neither sees nor locks more rows than it reads."""
        with self._mapped(), self.engine.connect() as connection:
            if self.locks_rows:
                connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                check_version(connection)
                yield connection

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            with mapped(self.engine, ERRORS):
                yield
        except OutboxAway as error:
            if isinstance(error.__cause__, DBAPIError) and self._has_no_table():
                raise NoOutboxTable(self.name, CREATE) from error
            raise

    def _has_no_table(self) -> bool:
        try:
            return not inspect(self.engine).has_table(table.name)
        except SQLAlchemyError:
            return False

    # --- for people -------------------------------------------------------------------------------

    def rows(self, *, refused_only: bool, limit: int) -> list[ListedRow]:
        """Return rows, oldest first."""
        columns = (_c.id, _c.created_us, _c.task, _c.queue, _c.size, _c.refused, _c.attempts, _c.error)
        wanted = select(*columns).order_by(_c.created_us).limit(limit)
        if refused_only:
            wanted = wanted.where(_c.refused == 1)
        with self._begun() as connection:
            found = connection.execute(wanted).all()
        return [ListedRow(*row[:5], bool(row.refused), row.attempts, row.error or "") for row in found]

    def backlog(self) -> OutboxBacklog:
        """Count the rows."""
        waiting = select(func.count(), func.min(_c.created_us)).where(_c.refused == 0)
        refused = select(func.count()).select_from(table).where(_c.refused == 1)
        with self._begun() as connection:
            count, oldest_us = connection.execute(waiting).one()
            age = max(time.time() - oldest_us / 1e6, 0.0) if oldest_us else 0.0
            return OutboxBacklog(count, age, connection.scalar(refused) or 0)

    def retry(self, ids: Sequence[str] | None) -> int:
        """Let refused rows wait again."""
        with self._begun() as connection:
            return connection.execute(update(table).where(*_refused(ids)).values(refused=0)).rowcount

    def remove(self, ids: Sequence[str]) -> int:
        """Delete refused rows."""
        with self._begun() as connection:
            return connection.execute(delete(table).where(*_refused(ids))).rowcount


def _refused(ids: Sequence[str] | None) -> list[ColumnElement[bool]]:
    return [_c.refused == 1, *([_c.id.in_(ids)] if ids is not None else [])]


def is_shared(engine: Engine) -> bool:
    """Return whether all threads share a connection, so that no relay can have one of its own."""
    url = engine.url
    place = f"{url.database or ':memory:'} {url.query}"
    in_memory = url.get_backend_name() == "sqlite" and (":memory:" in place or "mode=memory" in place)
    return in_memory or isinstance(engine.pool, StaticPool)


def check_version(connection: Connection) -> None:
    """Check that the database can pass over locked rows, or needs not.

    Raises:
        UnsupportedOutboxDatabase: It cannot.
    """
    dialect: Any = connection.dialect
    if dialect.name not in SUPPORTED:
        raise UnsupportedOutboxDatabase(dialect.name, "relays cannot share its rows")
    if dialect.name not in ("mysql", "mariadb"):
        return
    version = tuple(part for part in dialect.server_version_info or () if isinstance(part, int))
    if version and version < SKIPS_SINCE[bool(dialect.is_mariadb)]:
        name = "MariaDB" if dialect.is_mariadb else "MySQL"
        raise UnsupportedOutboxDatabase(f"{name} {'.'.join(map(str, version))}", "it has no SKIP LOCKED")


# --- steps of a relay, also run on the connections of async engines -------------------------------------


def claim(connection: Connection, ids: Sequence[str] | None) -> list[OutboxRow]:
    """Claim waiting rows that no other relay has: ``ids``, or the oldest; return them, oldest first."""
    wanted = select(_c.id, _c.size).where(_c.refused == 0).order_by(_c.created_us).limit(CLAIMED_ROWS)
    if ids is not None:
        wanted = wanted.where(_c.id.in_(ids))
    take = _lock if connection.dialect.name in LOCKING else _lease
    columns = (_c.id, _c.created_us, _c.task, _c.queue, _c.message)
    found = connection.execute(select(*columns).where(_c.id.in_(take(connection, wanted))).order_by(_c.created_us))
    return [OutboxRow(*row) for row in found]


def _lock(connection: Connection, wanted: Select[Any]) -> list[str]:
    found = connection.execute(wanted.with_for_update(skip_locked=True)).all()
    return cut([(row.id, row.size) for row in found])


def _lease(connection: Connection, wanted: Select[Any]) -> list[str]:
    now = now_us()
    until = now + CLAIM_SECONDS * 1_000_000
    free = _c.claimed_until_us < now
    ids = cut([(row.id, row.size) for row in connection.execute(wanted.where(free))])
    # Another relay may have been faster since. The time of the end of the lease identifies this one.
    connection.execute(update(table).where(_c.id.in_(ids), free).values(claimed_until_us=until))
    mine = select(_c.id).where(_c.id.in_(ids), _c.claimed_until_us == until)
    return list(connection.scalars(mine))


def settle(connection: Connection, rows: Sequence[OutboxRow], outcome: PushOutcome) -> None:
    """Delete pushed rows, mark refused ones, and release the others."""
    if outcome.pushed:
        connection.execute(delete(table).where(_c.id.in_(list(outcome.pushed))))
    for identity, error in outcome.refused:
        values = {"refused": 1, "attempts": _c.attempts + 1, "error": error, "claimed_until_us": 0}
        connection.execute(update(table).where(_c.id == identity).values(values))
    ended = {*outcome.pushed, *(identity for identity, _ in outcome.refused)}
    left = [row.id for row in rows if row.id not in ended]
    if left and connection.dialect.name not in LOCKING:
        connection.execute(update(table).where(_c.id.in_(left)).values(claimed_until_us=0))
