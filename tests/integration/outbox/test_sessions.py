"""Tasks submitted in the transaction of a SQLAlchemy session."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery, chain, chord, group
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from taskapp.errors import InvalidPayload, PayloadTooLarge, UnknownQueue
from taskapp.errors.outbox import CannotBeInOutbox, NotAnAppOfTaskapp, UnsupportedOutboxDatabase
from taskapp.errors.tasks import BadOption
from taskapp.outbox.relay import Relay
from taskapp.outbox.sql_store import SqlStore
from taskapp.outbox.sqlalchemy import OutboxMessage, metadata, with_session
from taskapp.tasks import add
from tests.integration.outbox import jobs
from tests.integration.outbox.conftest import url_of
from tests.support import RedisServer, clean_environment, eventually

Queued = Callable[..., Sequence[str]]
pytestmark = pytest.mark.usefixtures("app")


def test_a_commit_queues_the_task_at_once_and_deletes_the_row(
    session: Session, store: SqlStore, queued: Queued
) -> None:
    result = with_session(session).delay(add, 2, 3)
    assert queued() == []
    session.commit()

    assert eventually(queued) == [result.id]
    eventually(lambda: store.backlog().waiting == 0)


def test_a_rollback_queues_nothing(session: Session, store: SqlStore, app: Celery, queued: Queued) -> None:
    with_session(session).delay(add, 2, 3)
    session.flush()
    session.rollback()
    kept = with_session(session).delay(add, 4, 5)
    session.commit()

    eventually(queued)
    assert Relay(app, store).drain() == 0
    assert queued() == [kept.id]


def test_a_savepoint_that_is_rolled_back_queues_nothing(session: Session, store: SqlStore, queued: Queued) -> None:
    outbox = with_session(session)
    first = outbox.delay(add, 1, 1)
    with session.begin_nested():
        second = outbox.delay(add, 2, 2)
    savepoint = session.begin_nested()
    outbox.delay(add, 3, 3)
    savepoint.rollback()
    assert queued() == []
    session.commit()

    eventually(lambda: store.backlog().waiting == 0)
    assert queued() == [first.id, second.id]


def test_a_session_that_is_closed_without_a_commit_queues_nothing(
    session: Session, store: SqlStore, app: Celery, queued: Queued
) -> None:
    with_session(session).delay(add, 2, 3)
    session.flush()
    session.close()
    session.commit()

    assert Relay(app, store).drain() == 0
    assert queued() == []


def test_a_large_transaction_is_queued_at_once(session: Session, store: SqlStore, queued: Queued) -> None:
    sent = [with_session(session).delay(jobs.echo, "x" * 20_000).id for _ in range(250)]
    session.commit()

    eventually(lambda: store.backlog().waiting == 0, within_seconds=40)
    assert sorted(queued()) == sorted(sent)


@pytest.mark.usefixtures("no_prompt_relay")
def test_rows_are_queued_in_the_order_of_their_submits(
    session: Session, store: SqlStore, app: Celery, queued: Queued
) -> None:
    outbox = with_session(session)
    sent = [outbox.delay(add, number, number).id for number in range(250)]
    session.commit()

    assert Relay(app, store).drain() == 250
    assert queued() == sent


@pytest.mark.usefixtures("no_prompt_relay")
def test_options_hold(
    session: Session, store: SqlStore, app: Celery, queued: Queued, redis_server: RedisServer
) -> None:
    outbox = with_session(session)
    urgent = outbox.apply_async(add, (1, 2), queue="critical", priority=7)
    later = outbox.apply_async(add.s(2), (1,), countdown=60)
    at = outbox.apply_async(add, (1, 2), eta=datetime.now(UTC) + timedelta(hours=1), expires=7_200, task_id="mine")
    by_name = with_session(session, app).apply_async("taskapp.add", (1, 2), headers={"tenant": "a"})
    session.commit()
    Relay(app, store).drain()

    assert queued("critical", 7) == [urgent.id]
    assert queued() == [by_name.id]
    assert {*redis_server.client.zrange("taskapp:{default}:delayed", 0, -1)} == {later.id, at.id}
    assert at.id == "mine"


def test_a_task_runs_with_its_arguments_and_its_result_is_found(
    session: Session, worker: Callable[..., object], app: Celery
) -> None:
    worker()
    outbox = with_session(session)
    results = [
        outbox.delay(add, 2, 3),
        outbox.apply_async(add.s(10), (1,)),
        outbox.apply_async(chain(add.s(1, 1), add.s(5))),
        outbox.apply_async(add, (2, 3), compression="zlib"),
        outbox.apply_async(add, (2, 3), expires=60),
    ]
    together = outbox.apply_async(group(add.s(n, n) for n in range(3)))
    session.commit()

    assert [result.get(timeout=30) for result in results] == [5, 11, 7, 5, 5]
    assert together.get(timeout=30) == [0, 2, 4]


CANVAS = {
    "a chain": (lambda: jobs.echo.s(5) | jobs.double.s(), 10),
    "a chain with a link": (lambda: chain(jobs.echo.s(5).set(link=jobs.echo.si(1)), jobs.double.s()), 10),
    "a group": (lambda: group(jobs.echo.s(1), jobs.echo.s(2)), [1, 2]),
    "a group of one": (lambda: group(jobs.echo.s(1)), [1]),
    "a group of chains": (lambda: group(jobs.echo.s(1) | jobs.double.s(), jobs.echo.s(2)), [2, 2]),
    "a group in a group": (lambda: group(group(jobs.echo.s(1)), jobs.echo.s(2)), [1, 2]),
    "a chain that ends with a group": (lambda: chain(jobs.echo.s(1), group(jobs.double.s(), jobs.double.s())), [2, 2]),
    "chunks": (lambda: jobs.total.chunks([([1, 2],), ([3],)], 1).group(), [[3], [3]]),
    "a map": (lambda: jobs.double.map([1, 2]), [2, 4]),
    "a chord": (lambda: chord([jobs.echo.s(1), jobs.echo.s(2)], jobs.total.s()), 3),
    "of one task": (lambda: chord([jobs.echo.s(4)], jobs.total.s()), 4),
    "of chains": (lambda: chord([chain(jobs.echo.s(1), jobs.double.s()), jobs.echo.s(2)], jobs.total.s()), 4),
    "in a chord": (
        lambda: chord([chord([jobs.echo.s(1), jobs.echo.s(2)], jobs.total.s()), jobs.echo.s(9)], jobs.total.s()),
        12,
    ),
    "with a step behind it": (lambda: chord([jobs.echo.s(1), jobs.echo.s(2)], jobs.total.s()) | jobs.double.s(), 6),
    "a group with a step behind it": (lambda: group(jobs.echo.s(1), jobs.echo.s(2)) | jobs.total.s(), 3),
    "two of them": (
        lambda: chain(group(jobs.echo.s(1), jobs.echo.s(2)), jobs.total.s(), group(jobs.double.s(), jobs.double.s())),
        [6, 6],
    ),
    "a group that has one": (
        lambda: group(chord([jobs.echo.s(1), jobs.echo.s(2)], jobs.total.s()), jobs.echo.s(8)),
        [3, 8],
    ),
    "behind a task": (lambda: chain(jobs.echo.s(1), chord([jobs.double.s(), jobs.double.s()], jobs.total.s())), 4),
}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", CANVAS)
def test_no_canvas_goes_past_the_outbox(
    name: str, session: Session, store: SqlStore, app: Celery, redis_server: RedisServer
) -> None:
    redis_server.kill()
    with_session(session).apply_async(CANVAS[name][0]())
    redis_server.start()

    session.flush()
    assert session.scalars(select(OutboxMessage)).all()
    assert not redis_server.client.keys("*default*")
    assert not redis_server.client.keys("taskapp:chord:*")
    session.rollback()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_canvas_comes_to_its_end(
    session: Session, worker: Callable[..., object], app: Celery, redis_server: RedisServer
) -> None:
    worker(TASKAPP_INCLUDE="tests.integration.outbox.jobs")
    wanted = {name: make() for name, (make, _) in CANVAS.items()}
    before = {name: json.dumps(signature).count(": true") for name, signature in wanted.items()}
    results = {name: with_session(session).apply_async(signature) for name, signature in wanted.items()}
    high = with_session(session).apply_async(wanted["a chord"], queue="high", countdown=0.2)
    assert {name: json.dumps(signature).count(": true") for name, signature in wanted.items()} == before
    assert not redis_server.client.keys("taskapp:chord:*")
    session.commit()

    assert {name: result.get(timeout=30) for name, result in results.items()} == {
        name: value for name, (_, value) in CANVAS.items()
    }
    assert high.get(timeout=30) == 3


def test_what_delay_refuses_is_refused_at_the_caller(session: Session, app: Celery) -> None:
    outbox = with_session(session)
    for error, call in {
        InvalidPayload: lambda: outbox.delay(jobs.echo, object()),
        PayloadTooLarge: lambda: outbox.delay(jobs.echo, "x" * 2_000_000),
        UnknownQueue: lambda: outbox.apply_async(add, (1, 2), queue="nowhere"),
        TypeError: lambda: outbox.delay(jobs.echo, 1, 2, 3),
        BadOption: lambda: outbox.apply_async(add, (1, 2), priority=10),
        NotAnAppOfTaskapp: lambda: outbox.apply_async(Celery("stock", set_as_current=False).signature("x")),
    }.items():
        with pytest.raises(error):
            call()
    with pytest.raises(InvalidPayload, match=r"order\.number"):
        outbox.delay(jobs.pay, {"number": "many"})
    with pytest.raises(BadOption, match="leave it out"):
        outbox.apply_async(add, (1, 2), producer=object())
    app.conf.task_protocol = 1
    try:
        with pytest.raises(CannotBeInOutbox, match="task_protocol is 1; set it to 2"):
            outbox.delay(add, 1, 2)
    finally:
        app.conf.task_protocol = 2

    assert not session.new


def test_the_rows_are_objects_of_the_session_until_they_are_queued(session: Session, queued: Queued) -> None:
    result = with_session(session).delay(add, 2, 3)

    [row] = session.scalars(select(OutboxMessage)).all()
    assert (row.id, row.task, row.queue) == (result.id, "taskapp.add", "default")
    assert json.loads(row.message)["task"]["options"]["headers"]["argsrepr"] == "[2, 3]"
    session.rollback()


def test_a_commit_does_not_wait_for_a_broker_that_is_away(
    session: Session, store: SqlStore, app: Celery, queued: Queued, redis_server: RedisServer
) -> None:
    redis_server.kill()
    result = with_session(session).delay(add, 2, 3)
    session.commit()
    again = with_session(session).delay(add, 4, 5)
    session.commit()
    assert store.backlog().waiting == 2
    redis_server.start()

    eventually(lambda: Relay(app, store).drain() or not store.backlog().waiting)
    assert sorted(queued()) == sorted([result.id, again.id])


def test_two_sessions_commit_for_themselves(engine: object, queued: Queued) -> None:
    sessions = scoped_session(sessionmaker(engine))  # type: ignore[call-overload]
    with Session(engine) as other:  # type: ignore[arg-type]
        with_session(other).delay(add, 1, 1)
        result = with_session(sessions).delay(add, 2, 2)
        if "sqlite" not in str(engine):
            other.flush()
        sessions.commit()
        eventually(queued)
        other.rollback()
    sessions.remove()

    assert queued() == [result.id]


def test_an_eager_app_runs_the_task_after_the_commit(session: Session, app: Celery, queued: Queued) -> None:
    jobs.ran.clear()
    app.conf.task_always_eager = True
    try:
        outbox = with_session(session)
        outbox.delay(jobs.note, "rolled back")
        session.rollback()
        with session.begin_nested() as savepoint:
            outbox.delay(jobs.note, "savepoint rolled back")
            savepoint.rollback()
        outbox.delay(jobs.note, "closed")
        session.close()
        with session.begin_nested():
            outbox.apply_async(jobs.note.s("more"), ("kept",))
        assert jobs.ran == []
        session.commit()
        with pytest.raises(InvalidPayload):
            outbox.delay(jobs.pay, {"number": "many"})
    finally:
        app.conf.task_always_eager = False

    assert jobs.ran == [("kept", "more")]
    assert queued() == []


def test_a_database_in_memory_waits_for_a_relay_of_its_own(app: Celery, queued: Queued) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    metadata.create_all(engine)
    with Session(engine) as session:
        result = with_session(session).delay(add, 2, 3)
        session.commit()

    assert queued() == []
    assert Relay(app, SqlStore(engine)).drain() == 1
    assert queued() == [result.id]


def test_a_database_without_relays_is_refused(monkeypatch: pytest.MonkeyPatch, app: Celery) -> None:
    engine = create_engine("sqlite://")
    monkeypatch.setattr(engine.dialect, "name", "oracle")
    with Session(engine) as session, pytest.raises(UnsupportedOutboxDatabase, match="use PostgreSQL, MariaDB"):
        with_session(session).delay(add, 2, 3)


async def _submit_async(url: str) -> list[str]:
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        kept = with_session(session).delay(add, 2, 3)
        await session.commit()
        with_session(session).delay(add, 4, 5)
        await session.rollback()
        async with session.begin_nested():
            nested = with_session(session).delay(add, 6, 7)
        await session.commit()
        await session.execute(text("SELECT 1"))
        # The loop goes on as it does in a web application.
        for _ in range(500):
            count = (await session.execute(text("SELECT count(*) FROM taskapp_outbox"))).scalar()
            await session.commit()
            if not count:
                break
            await asyncio.sleep(0.02)
    await engine.dispose()
    return [kept.id, nested.id]


def test_an_async_session_queues_when_it_commits(servers: dict[str, object], tmp_path: Path, queued: Queued) -> None:
    url = url_of("postgresql", servers, tmp_path).replace("postgresql:", "postgresql+psycopg:")
    sent = asyncio.run(_submit_async(url))

    assert sorted(eventually(lambda: len(queued()) >= 2 and queued())) == sorted(sent)


WITHOUT_GREENLET = """
import sys
sys.modules["greenlet"] = None  # SQLAlchemy 2.1 no longer depends on it
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from taskapp import Celery
from taskapp.outbox.sqlalchemy import metadata, with_session

app = Celery("shop", broker="redis://127.0.0.1:1/0")
@app.task(name="pay")
def pay(order): ...
metadata.create_all(engine := create_engine("sqlite:///outbox.db"))
with Session(engine) as session:
    with_session(session).delay(pay, 7)
    session.commit()
"""


def test_a_sync_session_needs_no_greenlet(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GREENLET], env=clean_environment(), cwd=tmp_path, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert SqlStore(create_engine(f"sqlite:///{tmp_path / 'outbox.db'}")).backlog().waiting == 1
