"""Opens the history database: picks the driver and its options, and maps its errors."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskapp.background import in_child
from taskapp.errors.history import BadDatabaseURL, HistoryAway, HistoryPackageMissing
from taskapp.urls import masked

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

DRIVERS = {
    "sqlite": ("sqlite3", "pysqlite", "history"),
    "postgresql": ("psycopg", "psycopg", "postgresql"),
    "mysql": ("pymysql", "pymysql", "mysql"),
    "mariadb": ("pymysql", "pymysql", "mysql"),
}
"""Database to its driver package, SQLAlchemy's name for the driver, and the extra that installs it."""
CONNECT_SECONDS = 10
SQLITE_CACHE_KIB = 65_536
SQLITE_CHECKPOINT_PAGES = 10_000
OPTIONS: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 30},
    "postgresql": {"connect_timeout": CONNECT_SECONDS},
    "mysql": {"connect_timeout": CONNECT_SECONDS, "read_timeout": 60, "write_timeout": 60, "charset": "utf8mb4"},
}
OPTIONS["mariadb"] = OPTIONS["mysql"]


def engine_for(text: str) -> Engine:
    """Return SQLAlchemy's engine for the URL ``text``; raises as ``open_history`` does."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import ArgumentError

    url = _with_driver(text)
    name = url.get_backend_name()
    try:
        engine = create_engine(url, connect_args=OPTIONS[name], pool_size=1, pool_pre_ping=True)
    except (ImportError, ArgumentError, TypeError) as error:
        raise BadDatabaseURL(masked(text), str(error)) from error
    if name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    in_child(_leave_to_parent, owner=engine)
    return engine


def _leave_to_parent(engine: Engine) -> None:
    engine.dispose(close=False)


def _with_driver(text: str) -> URL:
    """Return the URL ``text`` with an installed driver; for a URL without one SQLAlchemy picks older drivers."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise BadDatabaseURL(masked(text), "it is not a valid URL") from None
    if url.drivername == "postgres":
        url = url.set(drivername="postgresql")
    name = url.drivername.partition("+")[0]
    if name not in DRIVERS:
        raise BadDatabaseURL(masked(text), f"{name!r} is not a supported database")
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise BadDatabaseURL(masked(text), "an in-memory database is lost when the process ends")
    if "+" in url.drivername:
        return url
    package, driver, extra = DRIVERS[name]
    if importlib.util.find_spec(package) is None:
        raise HistoryPackageMissing(package, extra)
    return url.set(drivername=f"{name}+{driver}")


def shown(url: URL) -> str:
    """Return ``url`` the way people write it, without the password."""
    return masked(url.set(drivername=url.get_backend_name()).render_as_string())


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Let readers read during a write, and put each commit on disk: Redis forgets a task once it is committed."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    # The ids of a million tasks fill 20,000 pages, and the next id may belong on any of them.
    connection.execute(f"PRAGMA cache_size=-{SQLITE_CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint={SQLITE_CHECKPOINT_PAGES}")


@contextmanager
def mapped(engine: Engine) -> Iterator[None]:
    """Map the errors of an unusable database to ``HistoryAway``.

    Raises:
        HistoryAway: The database cannot be reached, or refuses; ``sqlalchemy.exc.DataError`` passes unchanged.
    """
    from sqlalchemy.exc import DataError, SQLAlchemyError

    try:
        yield
    except DataError:
        raise
    except (SQLAlchemyError, OSError) as error:
        raise HistoryAway(shown(engine.url), getattr(error, "orig", None) or error) from error
