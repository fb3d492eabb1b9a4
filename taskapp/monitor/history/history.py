"""Finished tasks in SQL: written once each, searched, deleted when old."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict
from sqlalchemy import Connection, Select, delete, func, insert, inspect, select
from sqlalchemy.dialects.mysql import insert as insert_mysql
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import SQLAlchemyError

from taskapp.engine.completions import Finished
from taskapp.errors.history import (
    BadDatabaseURL,
    HistoryAway,
    HistoryEmpty,
    HistoryOff,
    HistoryPackageMissing,
    HistoryTooNew,
)
from taskapp.monitor.history.search import (
    Cursor,
    Page,
    Query,
    conditions,
    cut,
    merged,
    newest_first,
    of_states,
    page_of,
)
from taskapp.monitor.history.tables import LAYOUT, layout, metadata, tasks
from taskapp.monitor.history.text_search import page_with_text
from taskapp.private_files import make_private_directory, make_private_file
from taskapp.settings import Settings
from taskapp.sql import Errors, engine_for, mapped, shown
from taskapp.urls import revealed

if TYPE_CHECKING:
    from sqlalchemy import Engine

SQLITE_FILE = "history.sqlite"
DELETED_AT_ONCE = 1_000
LIMIT_MOST = 1_000
"""Maximum number of tasks on one page."""
ERRORS = Errors(BadDatabaseURL, HistoryPackageMissing, HistoryAway)
SQLITE_CACHE_KIB = 65_536
SQLITE_CHECKPOINT_PAGES = 10_000


class History:
    """The history in one database. Any thread may use it.

    Args:
        url: A SQLAlchemy URL; see ``open_history`` for its errors.

    Raises (all methods that query the database):
        HistoryAway: The database cannot be reached, or refuses.
        HistoryEmpty: Nothing was ever written to it.
        HistoryTooNew: A newer version of taskapp created its tables.
    """

    def __init__(self, url: str) -> None:
        self._engine: Engine = engine_for(url, ERRORS, _prepare)
        self._is_known = False

    @property
    def url(self) -> str:
        """URL of the database, without the password."""
        return shown(self._engine.url)

    # --- writing ----------------------------------------------------------------------------------

    def create(self) -> None:
        """Create the tables if they do not exist; several processes may do so at once."""
        with mapped(self._engine, ERRORS):
            if self._file is not None:
                # SQLite creates its other files with the mode of this one.
                make_private_directory(self._file.parent)
                make_private_file(self._file)
            try:
                self._create()
            except SQLAlchemyError:
                self._create()  # another process may have been faster; each database reports that differently
        with self._connected():
            pass

    def _create(self) -> None:
        with self._engine.begin() as connection:
            metadata.create_all(connection)
            if connection.scalar(select(func.count()).select_from(layout)) == 0:
                connection.execute(insert(layout).values(layout=LAYOUT))

    def add(self, finished: Sequence[Finished]) -> None:
        """Insert tasks, all of them or none; a task that is already stored stays as it is.

        Raises:
            sqlalchemy.exc.DataError: The database will never accept one of them.
        """
        if finished:
            with mapped(self._engine, ERRORS), self._engine.begin() as connection:
                connection.execute(self._insert, [asdict(each) for each in finished])

    @cached_property
    def _insert(self) -> Any:
        name = self._engine.dialect.name
        if name == "sqlite":
            return insert_sqlite(tasks).on_conflict_do_nothing()
        if name == "postgresql":
            return insert_postgresql(tasks).on_conflict_do_nothing()
        return insert_mysql(tasks).prefix_with("IGNORE")

    def prune(self, older_than_seconds: float) -> int:
        """Delete tasks that finished more than ``older_than_seconds`` ago, oldest first; return how many.

        Deletes ``DELETED_AT_ONCE`` per call, plus those that finished in the same microsecond as the last one.
        """
        before_us = int((time.time() - older_than_seconds) * 1_000_000)
        at = tasks.c.finished_us
        last = select(at).where(at < before_us).order_by(at).limit(1)
        with self._connected() as connection:
            until_us = connection.scalar(last.offset(DELETED_AT_ONCE - 1))
            gone = at < before_us if until_us is None else at <= until_us
            count = connection.execute(delete(tasks).where(gone)).rowcount
            connection.commit()
        return int(count)

    # --- reading ----------------------------------------------------------------------------------

    def search(self, query: Query, limit: int = 50, after: str | None = None) -> Page:
        """Return the next page of tasks that match ``query``: up to ``limit``, at most 1,000, behind ``after``.

        With ``query.text``, a page may be short or empty without being the last: one call searches a bounded
        number of tasks, for half a second.

        Raises:
            UnknownState: ``query.states`` names a state that does not exist.
            BadCursor: ``after`` is not a cursor of an earlier page.
        """
        limit = max(1, min(limit, LIMIT_MOST))
        where = conditions(query)
        if after is not None:
            where.append(Cursor.of(after).behind)
        parts = [[*where, *state] for state in of_states(query)]
        with self._connected() as connection:
            tasks_of = partial(_tasks, connection)
            if query.text:
                return page_with_text(partial(_keys, connection), tasks_of, query, parts, limit)
            return cut(merged(tasks_of(page_of(query, part, limit)) for part in parts), limit)

    def get(self, task_id: str) -> list[Finished]:
        """Return every recorded end of a task, newest first; a replayed task has several."""
        wanted = select(tasks).where(tasks.c.id == task_id).order_by(*newest_first()).limit(LIMIT_MOST)
        with self._connected() as connection:
            return [_finished(row) for row in connection.execute(wanted).mappings()]

    def count(self) -> int:
        """Return the number of tasks; reads a whole index."""
        with self._connected() as connection:
            return int(connection.scalar(select(func.count()).select_from(tasks)) or 0)

    # --- the database -----------------------------------------------------------------------------

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        if self._file is not None and not self._file.exists():
            raise HistoryEmpty(self.url)  # connecting would create the file
        with mapped(self._engine, ERRORS), self._engine.connect() as connection:
            if not self._is_known:
                self._check_layout(connection)
            yield connection

    def _check_layout(self, connection: Connection) -> None:
        has_table = inspect(connection).has_table(layout.name)
        found = connection.scalar(select(func.max(layout.c.layout))) if has_table else None
        if found is None:
            raise HistoryEmpty(self.url)
        if found > LAYOUT:
            raise HistoryTooNew(self.url, found, LAYOUT)
        self._is_known = True

    @property
    def _file(self) -> Path | None:
        url = self._engine.url
        is_path = url.get_backend_name() == "sqlite" and url.database and not url.database.startswith("file:")
        return Path(str(url.database)) if is_path else None


def _prepare(database: str, connection: Any) -> None:
    """Let readers of SQLite read during a write, and put each commit on disk: Redis forgets a task once committed."""
    if database != "sqlite":
        return
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    # The ids of a million tasks fill 20,000 pages, and the next id may belong on any of them.
    connection.execute(f"PRAGMA cache_size=-{SQLITE_CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint={SQLITE_CHECKPOINT_PAGES}")


def _tasks(connection: Connection, selected: Select[Any]) -> list[Finished]:
    return [_finished(row) for row in connection.execute(selected).mappings()]


def _keys(connection: Connection, selected: Select[Any]) -> list[Cursor]:
    return [Cursor(*row) for row in connection.execute(selected)]


def _finished(row: Mapping[Any, Any]) -> Finished:
    return Finished(**row)


def open_history(settings: Settings) -> History:
    """Return the history that ``settings`` configure, without connecting to it.

    Raises:
        HistoryOff: The history is turned off.
        HistoryPackageMissing: The driver for this database is not installed.
        BadDatabaseURL: The URL is malformed, or names an unsupported database.
    """
    if not settings.keeps_history:
        raise HistoryOff
    return History(revealed(settings.history_url) or f"sqlite:///{settings.data_dir / SQLITE_FILE}")
