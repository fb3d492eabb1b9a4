"""Relays: what they queue, what they refuse, and what they do while a server is away."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import text
from sqlalchemy.orm import Session

from taskapp.engine.queue_limits import QueueLimits
from taskapp.errors.outbox import NoOutboxTable, OutboxAway, UnsupportedOutboxDatabase
from taskapp.monitor.doctor_outbox import outbox
from taskapp.outbox import sql_store
from taskapp.outbox.relay import Relay
from taskapp.outbox.rows import CLAIMED_BYTES, cut
from taskapp.outbox.sql_store import SqlStore
from taskapp.outbox.sqlalchemy import with_session
from taskapp.tasks import add
from tests.integration.outbox import jobs
from tests.integration.outbox.conftest import SLOWLY_ELSEWHERE, url_of
from tests.support import RedisServer, eventually

Queued = Callable[..., Sequence[str]]
pytestmark = pytest.mark.usefixtures("app", "no_prompt_relay")


def submit(session: Session, count: int = 1) -> list[str]:
    sent = [with_session(session).delay(add, number, number).id for number in range(count)]
    session.commit()
    return sent


@contextmanager
def running(*relays: Relay) -> Iterator[list[threading.Thread]]:
    threads = [threading.Thread(target=relay.run) for relay in relays]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for relay in relays:
            relay.stop()
        for thread in threads:
            thread.join(20)


def test_two_relays_queue_each_row_once(session: Session, store: SqlStore, app: Celery, queued: Queued) -> None:
    sent = submit(session, 700)
    with running(Relay(app, store), Relay(app, SqlStore.at(store.engine.url.render_as_string(hide_password=False)))):
        eventually(lambda: store.backlog().waiting == 0, within_seconds=60)

    assert Counter(queued()) == dict.fromkeys(sent, 1)


def test_rows_of_a_full_queue_wait_for_room_and_others_do_not(
    session: Session, store: SqlStore, app: Celery, queued: Queued
) -> None:
    relay = Relay(app, store)
    with app.engine() as engine:  # type: ignore[attr-defined]  # taskapp's class
        limits = QueueLimits(engine.link, engine.prefix)
        limits.set("default", 2)
        sent = submit(session, 5)
        elsewhere = with_session(session).apply_async(add, (1, 2), queue="low").id
        session.commit()

        relay.drain()
        assert store.backlog().waiting == 3
        assert (queued(), queued("low")) == (sent[:2], [elsewhere])

        limits.clear("default")
        relay.drain()
    assert store.backlog().waiting == 0
    assert (queued(), queued("low")) == (sent, [elsewhere])


def test_a_row_that_another_relay_holds_is_passed_over(session: Session, store: SqlStore, app: Celery) -> None:
    submit(session, 2)
    inner: list[int] = []
    pusher = Relay(app, store)._pusher

    def push(rows: Sequence[object]) -> object:
        inner.append(Relay(app, store).drain())
        return pusher.push(rows)  # type: ignore[arg-type]

    store.relay(push)  # type: ignore[arg-type]

    assert inner == [0]
    assert store.backlog().waiting == 0


def test_submits_do_not_wait_for_a_relay_that_waits_for_the_broker(
    session: Session, store: SqlStore, app: Celery, redis_server: RedisServer
) -> None:
    submit(session)
    during: list[str] = []

    def push(rows: Sequence[object]) -> object:
        # As long as this runs the relay holds its rows.
        with Session(store.engine) as other:
            other.execute(text("SET lock_timeout = '2s'" if "postgres" in store.name else "SELECT 1"))
            if "mysql" in store.name:
                other.execute(text("SET innodb_lock_wait_timeout = 2"))
            during.extend(submit(other, 3))
        return Relay(app, store)._pusher.push(rows)  # type: ignore[arg-type]

    store.relay(push)  # type: ignore[arg-type]

    assert len(during) == 3
    assert store.backlog().waiting == 3


def test_a_row_that_can_never_be_queued_is_marked_and_does_not_hold_up_others(
    session: Session, store: SqlStore, app: Celery, queued: Queued, caplog: pytest.LogCaptureFixture
) -> None:
    bad, unreadable, good = submit(session, 3)
    with store.engine.begin() as connection:
        update = text("UPDATE taskapp_outbox SET message = replace(message, 'default', 'gone') WHERE id = :id")
        connection.execute(update, {"id": bad})
        connection.execute(text("UPDATE taskapp_outbox SET message = '{' WHERE id = :id"), {"id": unreadable})
    relay = Relay(app, store)

    assert relay.drain() == 1
    assert queued() == [good]
    first, second = store.rows(refused_only=True, limit=10)
    assert (first.id, first.attempts, second.id) == (bad, 1, unreadable)
    assert first.error.startswith("UnknownQueue: no queue named 'gone'")
    assert f"run: taskapp outbox retry {bad}" in caplog.text
    assert store.backlog()[::2] == (0, 2)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE taskapp_outbox SET message = replace(message, 'gone', 'default')"))
    assert store.retry([bad]) == 1
    assert relay.drain() == 1
    assert queued() == [good, bad]
    assert store.retry(None) == 1
    assert relay.drain() == 0
    assert store.rows(refused_only=True, limit=10)[0].attempts == 2
    assert store.remove([good]) == 0
    assert store.remove([unreadable]) == 1
    assert store.rows(refused_only=False, limit=10) == []


def test_what_redis_refuses_is_queued_once_the_cause_is_mended(
    session: Session, store: SqlStore, app: Celery, queued: Queued, redis_server: RedisServer
) -> None:
    redis_server.client.set("taskapp:{default}:delayed", "something else")
    outbox = with_session(session)
    first = outbox.delay(add, 1, 1)
    later = outbox.apply_async(add, (2, 2), countdown=60)
    last = outbox.delay(add, 3, 3)
    session.commit()

    assert Relay(app, store).drain() == 2
    assert queued() == [first.id, last.id]
    [row] = store.rows(refused_only=True, limit=5)
    assert (row.id, "WRONGTYPE" in row.error) == (later.id, True)
    redis_server.client.delete("taskapp:{default}:delayed")
    store.retry(None)
    assert Relay(app, store).drain() == 1
    assert redis_server.client.zrange("taskapp:{default}:delayed", 0, -1) == [later.id]
    assert queued() == [first.id, last.id]


@SLOWLY_ELSEWHERE
def test_an_absence_of_the_broker_is_two_lines_in_the_log(
    session: Session, store: SqlStore, app: Celery, queued: Queued, redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    caplog.set_level(logging.WARNING, "taskapp.outbox")
    redis_server.kill()
    sent = submit(session, 3)
    relay = Relay(app, store)
    pauses = [relay._turn() for _ in range(2)]
    redis_server.start()
    eventually(lambda: relay._turn() > 0 and queued())

    assert pauses == [1.0, 2.0]
    assert queued() == sent
    actions = [record.action for record in caplog.records if record.name == "taskapp.outbox.relay"]  # type: ignore[attr-defined]
    assert actions == ["outbox_waits", "outbox_continues"]


def test_a_full_redis_leaves_rows_waiting(
    session: Session, store: SqlStore, app: Celery, queued: Queued, redis_server: RedisServer
) -> None:
    sent = submit(session)
    redis_server.client.config_set("maxmemory", "1")
    try:
        assert Relay(app, store).drain() == 0
        assert store.backlog()[::2] == (1, 0)
    finally:
        redis_server.client.config_set("maxmemory", "0")

    assert Relay(app, store).drain() == 1
    assert queued() == sent


def test_a_huge_payload_is_queued(session: Session, store: SqlStore, app: Celery, queued: Queued) -> None:
    sent = [with_session(session).delay(jobs.echo, "x" * 900_000).id for _ in range(4)]
    session.commit()

    assert Relay(app, store).drain() == 4
    assert queued() == sent


def test_a_claim_ends_with_the_bytes_that_one_push_may_have() -> None:
    assert cut([("a", CLAIMED_BYTES + 1), ("b", 1)]) == ["a"]
    assert cut([("a", CLAIMED_BYTES - 1), ("b", 1), ("c", 1)]) == ["a", "b"]
    assert cut([]) == []


def test_a_delayed_task_is_due_when_its_submit_said(
    session: Session, store: SqlStore, app: Celery, redis_server: RedisServer
) -> None:
    with_session(session).apply_async(add, (1, 2), countdown=600)
    session.commit()
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE taskapp_outbox SET created_us = created_us - 1000000000"))
    assert Relay(app, store).drain() == 1

    [(_, due_ms)] = redis_server.client.zrange("taskapp:{default}:delayed", 0, -1, withscores=True)
    assert 590_000 < due_ms - int(redis_server.client.time()[0]) * 1_000 <= 601_000


def test_without_a_table_the_error_says_how_to_make_one(store: SqlStore, app: Celery) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE taskapp_outbox"))

    with pytest.raises(NoOutboxTable, match="run: taskapp outbox create"):
        Relay(app, store).run()


def test_a_database_that_is_away_is_waited_for(
    app: Celery, servers: dict[str, tuple[object, object]], tmp_path: Path, queued: Queued,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    store = SqlStore.at(url_of("mariadb", servers, tmp_path))
    server = servers["mariadb"][1]
    with Session(store.engine) as session:
        sent = submit(session, 3)
    server.kill()  # type: ignore[attr-defined]
    with pytest.raises(OutboxAway):
        Relay(app, store).drain()
    with running(Relay(app, store)) as [thread]:
        eventually(lambda: "the rows of the outbox at" in caplog.text)
        server.start()  # type: ignore[attr-defined]
        eventually(lambda: len(queued()) == 3, within_seconds=40)
        assert thread.is_alive()

    assert queued() == sent
    assert "taskapp:***@" in caplog.text
    store.engine.dispose()


def test_a_server_without_skip_locked_is_named(
    app: Celery, servers: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sql_store.SKIPS_SINCE, True, (99, 1))
    store = SqlStore.at(url_of("mariadb", servers, tmp_path))

    with pytest.raises(UnsupportedOutboxDatabase, match=r"MariaDB 1\d\.\d+\.\d+: it has no SKIP LOCKED"):
        Relay(app, store).run()
    store.engine.dispose()


def test_the_url_of_an_async_engine_serves_a_relay_too(tmp_path: Path) -> None:
    store = SqlStore.at(f"sqlite+aiosqlite:///{tmp_path}/shop.sqlite")
    store.create()

    assert store.backlog().waiting == 0


def test_the_query_of_a_relay_uses_an_index(session: Session, store: SqlStore) -> None:
    submit(session, 50)
    statement = "SELECT id, size FROM taskapp_outbox WHERE refused = 0 ORDER BY created_us LIMIT 100"
    with store.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
        explained = connection.execute(text(explain + statement)).all()

    assert "taskapp_outbox_waiting" in str(explained)


def test_the_doctor_finds_rows_that_wait_and_rows_that_were_refused(
    session: Session, store: SqlStore, app: Celery
) -> None:
    url = store.engine.url.render_as_string(hide_password=False)
    assert outbox(url) == ("ok", "no task waits", "")
    submit(session, 2)
    assert outbox(url).verdict == "ok"
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE taskapp_outbox SET created_us = created_us - 300000000"))
    late = outbox(url)
    assert (late.verdict, late.found[:31]) == ("warn", "2 tasks wait, the oldest for 30")
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE taskapp_outbox SET refused = 1"))
    assert outbox(url)[:2] == ("warn", "2 tasks could not be queued")
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE taskapp_outbox"))
    assert outbox(url).verdict == "error"
