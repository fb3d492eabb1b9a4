"""Each finished task is one row, whatever is killed, frozen or away meanwhile."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest
from redis.connection import Connection
from sqlalchemy import select

from taskapp.engine.completions import Finished, FinishedTasks
from taskapp.engine.settlement import EndOfTask
from taskapp.errors.history import HistoryEmpty
from taskapp.monitor.history import History
from taskapp.monitor.history.tables import tasks
from taskapp.redis.link import Link
from tests.integration.history.conftest import Deployment, tell
from tests.support import RedisServer, eventually

SEED = int(os.environ.get("TESTS_SEED", "6"))


def stream(server: RedisServer, prefix: str = "") -> FinishedTasks:
    return FinishedTasks(Link(lambda: Connection(port=server.port, protocol=2)), prefix)


def told(number: int, *, age_seconds: float = 0.0, most: int = 100_000) -> EndOfTask:
    at_us = int((time.time() - age_seconds) * 1_000_000)
    return EndOfTask(most, Finished(at_us, f"task-{number}", "shop.pay", "default", "succeeded").packed())


def rows(url: str) -> Counter[str]:
    """How many rows each id has."""
    try:
        with History(url)._connected() as connection:
            return Counter(connection.scalars(select(tasks.c.id)))
    except HistoryEmpty:
        return Counter()


@pytest.mark.slow
def test_writers_that_are_killed_at_any_moment_lose_nothing_and_write_nothing_twice(deployment: Deployment) -> None:
    dice = random.Random(SEED)
    deployment.node()
    writers = [deployment.writer(f"writer{number}") for number in range(2)]
    eventually(lambda: all("writing" in one.output() for one in writers))
    ids: list[str] = []

    for _ in range(8):
        ids += deployment.submit("[*returns.submit_many((n,) for n in range(400)), fails.delay('no')]")
        for _ in range(3):
            time.sleep(dice.uniform(0.01, 0.25))  # the moment of the kill, not a wait for anything
            hit = dice.choice(writers)
            hit.kill()
            deployment.server.client.delete("taskapp:finished:writer")  # or the other waits for the lease
            hit.start()

    eventually(lambda: rows(deployment.url).total() >= len(ids) and deployment.waiting() == 0, within_seconds=60)
    assert rows(deployment.url) == Counter(ids)


def test_a_writer_that_is_killed_in_the_midst_of_a_batch_loses_none_of_it(deployment: Deployment) -> None:
    dice = random.Random(SEED)
    tell(deployment.server, *[told(number) for number in range(20_000)])

    for _ in range(6):
        before = deployment.waiting()
        writer = deployment.writer()
        eventually(lambda before=before: deployment.waiting() < before, every_seconds=0.001)
        time.sleep(dice.uniform(0.0, 0.05))  # the moment of the kill
        writer.kill()
        deployment.server.client.delete("taskapp:finished:writer")
    deployment.writer()

    eventually(lambda: deployment.waiting() == 0, within_seconds=60)
    assert rows(deployment.url) == {f"task-{number}": 1 for number in range(20_000)}


def test_a_second_writer_stands_by_and_takes_over_within_a_lease(deployment: Deployment) -> None:
    first = deployment.writer("first")
    tell(deployment.server, told(1))
    eventually(lambda: rows(deployment.url).total() == 1)
    leader = deployment.server.client.get("taskapp:finished:writer")
    second = deployment.writer("second")
    eventually(lambda: "writing" in second.output())

    first.kill()
    tell(deployment.server, told(2))

    eventually(lambda: rows(deployment.url).total() == 2, within_seconds=25)
    assert deployment.server.client.get("taskapp:finished:writer") != leader


def test_it_stops_after_its_batch_and_lets_another_lead_at_once(deployment: Deployment) -> None:
    writer = deployment.writer()
    eventually(lambda: deployment.server.client.exists("taskapp:finished:writer"))

    assert writer.terminate() == 0
    assert not deployment.server.client.exists("taskapp:finished:writer")
    assert "Traceback" not in writer.output()


def test_a_redis_that_dies_and_comes_back_is_waited_for(deployment: Deployment) -> None:
    writer = deployment.writer()
    eventually(lambda: deployment.server.client.exists("taskapp:finished:writer"))
    deployment.server.kill()
    eventually(lambda: "cannot write finished tasks" in writer.output())

    deployment.server.start()
    tell(deployment.server, told(1), told(2))

    eventually(lambda: rows(deployment.url).total() == 2)
    eventually(lambda: writer.output().count("again after") == 1)
    assert writer.output().count("cannot write finished tasks") == 1
    assert writer.returncode is None


def test_a_file_that_another_holds_is_waited_for(deployment: Deployment) -> None:
    History(deployment.url).create()
    with sqlite3.connect(deployment.url[10:], isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        writer = deployment.writer()
        tell(deployment.server, told(1))
        eventually(lambda: deployment.server.client.exists("taskapp:finished:writer") or writer.returncode is not None)
        assert deployment.waiting() == 1
        other.execute("ROLLBACK")

    eventually(lambda: rows(deployment.url).total() == 1 and deployment.waiting() == 0, within_seconds=40)


def test_a_frozen_writer_that_thaws_writes_nothing_twice(deployment: Deployment) -> None:
    frozen = deployment.writer("frozen")
    eventually(lambda: deployment.server.client.exists("taskapp:finished:writer"))
    os.kill(frozen.pid, signal.SIGSTOP)
    tell(deployment.server, *[told(number) for number in range(2_000)])
    deployment.server.client.delete("taskapp:finished:writer")
    deployment.writer("other")
    eventually(lambda: rows(deployment.url).total() > 0)
    os.kill(frozen.pid, signal.SIGCONT)

    eventually(lambda: deployment.waiting() == 0)
    assert set(rows(deployment.url).values()) == {1}
    assert rows(deployment.url).total() == 2_000


def test_what_was_told_twice_is_one_row(deployment: Deployment) -> None:
    once = told(1)
    tell(deployment.server, once, once, told(2))

    deployment.writer()

    eventually(lambda: rows(deployment.url) == {"task-1": 1, "task-2": 1})


def test_what_cannot_be_read_is_set_aside_and_holds_nobody_up(deployment: Deployment) -> None:
    client = deployment.server.client
    client.xadd("taskapp:finished", {"r": "no record"})
    client.xadd("taskapp:finished", {"other": "field", "more": "of them"})
    tell(deployment.server, told(1))

    writer = deployment.writer()

    eventually(lambda: rows(deployment.url) == {"task-1": 1})
    eventually(lambda: deployment.waiting() == 0)
    assert client.llen("taskapp:finished:aside") == 2
    assert stream(deployment.server).waiting().aside == 2
    assert "setting it aside" in writer.output()


def test_the_stream_is_bounded_and_what_falls_off_is_counted(redis_server: RedisServer) -> None:
    finished = stream(redis_server)
    for start in range(0, 5_000, 500):
        tell(redis_server, *[told(number, most=1_000) for number in range(start, start + 500)])

    waiting = finished.waiting()

    assert 0 <= waiting.oldest_seconds <= 20
    assert 1_000 <= waiting.records <= 1_200
    assert waiting.records + waiting.dropped == 5_000
    assert finished.oldest(1, 10)[0].finished.id == f"task-{waiting.dropped}"


def test_a_stream_that_is_something_else_fails_no_task(deployment: Deployment) -> None:
    deployment.server.client.set("taskapp:finished", "mine")
    deployment.node()

    assert deployment.python("print(json.dumps(returns.delay(5).get(timeout=20)))") == [5]

    eventually(lambda: int(deployment.server.client.hget("taskapp:counts", "finished_dropped") or 0) == 1)
    assert deployment.server.client.get("taskapp:finished") == "mine"


def test_old_tasks_are_deleted_after_the_days_they_are_kept(deployment: Deployment) -> None:
    day = 86_400
    tell(deployment.server, *[told(number, age_seconds=11 * day) for number in range(2_500)])
    tell(deployment.server, told(9_999, age_seconds=9 * day))

    deployment.writer(TASKAPP_HISTORY_DAYS="10")

    eventually(lambda: rows(deployment.url) == {"task-9999": 1})


def test_a_history_of_a_newer_taskapp_is_left_alone(deployment: Deployment) -> None:
    History(deployment.url).create()
    with sqlite3.connect(deployment.url[10:]) as connection:
        connection.execute("UPDATE taskapp_history_layout SET layout = 7")

    ended = [deployment.run("run"), deployment.run("search")]

    sentence = (
        f"Error: the history at {deployment.url!r} has layout 7, but this taskapp knows layout 1; "
        "upgrade taskapp here, or set another TASKAPP_HISTORY_URL\n"
    )
    assert [(done.returncode, done.stderr) for done in ended] == [(1, sentence)] * 2


def test_each_environment_has_its_own(redis_server: RedisServer) -> None:
    tell(redis_server, told(1))

    assert stream(redis_server, "other:").waiting().records == 0
    assert stream(redis_server).waiting().records == 1


def test_nothing_is_created_by_who_only_looks(deployment: Deployment) -> None:
    done = deployment.run("search")

    assert done.returncode == 1
    assert done.stderr == (
        f"Error: there is no history at {deployment.url!r} yet; to write one, run: taskapp history run\n"
    )
    assert not Path(deployment.url[10:]).exists()
