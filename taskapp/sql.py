"""SQL databases by URL: picks the driver and its options, and maps errors to those of the feature that uses one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from taskapp.background import in_child
from taskapp.errors import TaskappError
from taskapp.urls import masked

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

DRIVERS = {
    "sqlite": ("sqlite3", "pysqlite", ""),
    "postgresql": ("psycopg", "psycopg", "postgresql"),
    "mysql": ("pymysql", "pymysql", "mysql"),
    "mariadb": ("pymysql", "pymysql", "mysql"),
}
"""Database to its driver package, SQLAlchemy's name for the driver, and the extra that installs it."""
ASYNC_DRIVERS = ("aiosqlite", "asyncpg", "psycopg_async", "aiomysql", "asyncmy")
"""Drivers of web applications that taskapp replaces by its own."""
CONNECT_SECONDS = 10
OPTIONS: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 30},
    "postgresql": {"connect_timeout": CONNECT_SECONDS},
    "mysql": {"connect_timeout": CONNECT_SECONDS, "read_timeout": 60, "write_timeout": 60, "charset": "utf8mb4"},
}
OPTIONS["mariadb"] = OPTIONS["mysql"]


class Errors(NamedTuple):
    """The errors of a feature that keeps something in a database."""

    bad_url: Callable[[str, str], TaskappError]
    """Takes the URL, masked, and the reason."""
    package_missing: Callable[[str, str], TaskappError]
    """Takes the package and the extra that installs it."""
    away: Callable[[str, object], TaskappError]
    """Takes the URL, masked, and the reason."""


def engine_for(
    text: str, errors: Errors, on_connect: Callable[[str, Any], None] = lambda *_: None,
    connect_seconds: int = CONNECT_SECONDS,
) -> Engine:  # fmt: skip
    """Return SQLAlchemy's engine for the URL ``text``, with at most one idle connection.

    Args:
        text: An SQLAlchemy URL; one without a driver gets the one that taskapp's extras install.
        errors: What to raise.
        on_connect: Called with the name of the database system and each new DBAPI connection.
        connect_seconds: How long connecting may take.

    Raises:
        TaskappError: ``errors.bad_url`` or ``errors.package_missing``.
    """
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import ArgumentError

    url = _with_driver(text, errors)
    name = url.get_backend_name()
    options = {**OPTIONS[name], **({"connect_timeout": connect_seconds} if "connect_timeout" in OPTIONS[name] else {})}
    try:
        engine = create_engine(url, connect_args=options, pool_size=1, pool_pre_ping=True)
    except (ImportError, ArgumentError, TypeError) as error:
        raise errors.bad_url(masked(text), str(error)) from error
    event.listen(engine, "connect", lambda connection, _: on_connect(name, connection))
    in_child(_leave_to_parent, owner=engine)
    return engine


def _leave_to_parent(engine: Engine) -> None:
    engine.dispose(close=False)


def _with_driver(text: str, errors: Errors) -> URL:
    """Return the URL ``text`` with an installed driver; for a URL without one SQLAlchemy picks older drivers."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise errors.bad_url(masked(text), "it is not a valid URL") from None
    if url.drivername == "postgres":
        url = url.set(drivername="postgresql")
    name = url.drivername.partition("+")[0]
    if name not in DRIVERS:
        raise errors.bad_url(masked(text), f"{name!r} is not a supported database")
    if name == "sqlite" and url.database in (None, "", ":memory:"):
        raise errors.bad_url(masked(text), "an in-memory database is lost when the process ends")
    if "+" in url.drivername and url.drivername.partition("+")[2] not in ASYNC_DRIVERS:
        return url
    package, driver, extra = DRIVERS[name]
    if importlib.util.find_spec(package) is None:
        raise errors.package_missing(package, extra)
    return url.set(drivername=f"{name}+{driver}")


def shown(url: URL) -> str:
    """Return ``url`` the way people write it, without the password."""
    return masked(url.set(drivername=url.get_backend_name()).render_as_string())


@contextmanager
def mapped(engine: Engine, errors: Errors) -> Iterator[None]:
    """Map the errors of an unusable database to ``errors.away``.

    Raises:
        TaskappError: The database cannot be reached, or refuses; ``sqlalchemy.exc.DataError`` passes unchanged.
    """
    from sqlalchemy.exc import DataError, SQLAlchemyError

    try:
        yield
    except DataError:
        raise
    except (SQLAlchemyError, OSError) as error:
        raise errors.away(shown(engine.url), getattr(error, "orig", None) or error) from error
