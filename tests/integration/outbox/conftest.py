from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from taskapp.engine.envelope import unseal
from taskapp.outbox import promptly
from taskapp.outbox.sql_store import SqlStore
from taskapp.redis.keys import Keys
from tests.integration.databases import DATABASES, Database, running
from tests.support import RedisServer


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, Database]]:
    """Servers that are running already; ``url`` starts them."""
    started: dict[str, Any] = {}
    yield started
    for context in started.values():
        context[0].__exit__(None, None, None)


@pytest.fixture(params=["sqlite", *DATABASES])
def url(request: pytest.FixtureRequest, servers: dict[str, Any], tmp_path: Path) -> str:
    """An SQLAlchemy URL with an empty outbox."""
    return url_of(request.param, servers, tmp_path)


SLOWLY_ELSEWHERE = pytest.mark.parametrize(
    "url", ["sqlite", *(pytest.param(kind, marks=pytest.mark.slow) for kind in DATABASES)], indirect=True
)
"""For tests that take seconds: quick ones on one database, slow ones on the others."""


def url_of(kind: str, servers: dict[str, Any], directory: Path) -> str:
    if kind == "sqlite":
        url = f"sqlite:///{directory}/shop.sqlite"
    else:
        if kind not in servers:
            context = running(kind)
            servers[kind] = (context, context.__enter__())
        url = servers[kind][1].url
    store = SqlStore.at(url)
    store.create()
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM taskapp_outbox")
    store.engine.dispose()
    return url


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    store = SqlStore.at(url)
    yield store
    store.engine.dispose()


@pytest.fixture
def engine(store: SqlStore) -> Engine:
    """The engine of a web application."""
    return store.engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture(autouse=True)
def _own_prompt_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a relay of its own: one whose broker was away a moment ago makes no attempt."""
    monkeypatch.setattr(promptly.promptly, "value", None)


@pytest.fixture
def no_prompt_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave committed rows to relays."""
    monkeypatch.setattr(promptly.PromptRelay, "note", lambda *_: None)


@pytest.fixture
def queued(app: Celery, redis_server: RedisServer) -> Callable[..., Sequence[str]]:
    """Return the ids that are ready in a queue, oldest first."""

    def read(queue: str = "default", priority: int = 0) -> list[str]:
        client = redis_server.client
        client.connection_pool.connection_kwargs["decode_responses"] = False
        return [unseal(blob).id for blob in reversed(client.lrange(Keys().ready(queue, priority), 0, -1))]

    return read
