"""``celery beat`` with real workers: what is configured, what is changed, and how runs end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest
from celery import Celery

from taskapp.schedules.schedule import Schedule
from taskapp.schedules.store import Schedules
from taskapp.schedules.times import Interval, Once, tick_id
from tests.support import Node, Process, RedisServer, clean_environment, eventually

TIMED = "tests.integration.timed"
StartBeat = Callable[..., Process]


@pytest.fixture
def beat(tmp_path: Path, redis_server: RedisServer) -> Iterator[StartBeat]:
    """Start beats, each with a directory of its own: ``beat(TASKAPP_INCLUDE=TIMED)``."""
    started: list[Process] = []

    def start(*options: str, **settings: str) -> Process:
        directory = tmp_path / f"beat{len(started)}"
        directory.mkdir()
        environment = clean_environment(
            TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(directory), TASKAPP_CANARY_SECONDS="0",
            PYTHONPATH=os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]), **settings,
        )  # fmt: skip
        argv = [sys.executable, "-m", "celery", "-A", "taskapp", "beat", "-l", "INFO", *options]
        started.append(Node(argv, directory / "log", environment, directory))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def schedules(app: Celery) -> Iterator[Schedules]:
    with app.schedules() as lent:  # type: ignore[attr-defined]  # of our Application
        yield lent


def states(schedules: Schedules, name: str) -> set[str]:
    return {tick.state for tick in schedules.ticks(name)}


def test_entries_of_the_configuration_run_as_they_would_with_stock_beat(
    beat: StartBeat, worker: Callable[..., Process], schedules: Schedules, app: Celery
) -> None:
    schedules.add(Schedule("taken", f"{TIMED}.note", Interval(1.0), args=("mine",)))
    worker(TASKAPP_INCLUDE=TIMED)
    process = beat(TASKAPP_INCLUDE=TIMED)

    for name, result in (("seconds", 1), ("custom", "custom"), ("lazy", "lazy"), ("taken", "mine")):
        eventually(lambda name=name: "SUCCESS" in states(schedules, name))
        tick = next(tick for tick in schedules.ticks(name) if tick.state == "SUCCESS")
        assert app.AsyncResult(tick.id).get(timeout=20) == result
    crontab = schedules.get("crontab")
    assert (crontab.state, crontab.schedule.source) == ("active", "config")
    assert "ignoring entry 'taken' of beat_schedule" in process.output()
    assert process.cwd is not None
    assert not list(process.cwd.glob("celerybeat-schedule*"))

    process.terminate()
    beat()
    eventually(lambda: {known.schedule.name for known in schedules.all()} == {"taken"})


def test_a_beat_that_ends_hands_over_at_once_and_one_that_is_killed_after_its_lease(
    beat: StartBeat, schedules: Schedules
) -> None:
    schedules.add(Schedule("job", f"{TIMED}.note", Interval(0.5), args=("x",)))
    first = beat()
    eventually(lambda: schedules.ticks("job"))
    token = schedules.leader().token
    second = beat()
    eventually(lambda: "Starting" in second.output())

    assert first.terminate() == 0
    eventually(lambda: schedules.leader().token == token + 1, within_seconds=3)
    third = beat()
    eventually(lambda: "Starting" in third.output())
    os.kill(second.pid, signal.SIGKILL)
    eventually(lambda: schedules.leader().token == token + 2, within_seconds=10)
    sent = len(schedules.ticks("job"))
    eventually(lambda: len(schedules.ticks("job")) > sent or len(schedules.ticks("job")) == 20)

    ids = [tick.id for tick in schedules.ticks("job")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("task", "state"),
    [
        ("note", "SUCCESS"),
        ("try_again", "FAILURE"),
        ("come_through", "SUCCESS"),
        ("hang", "FAILURE"),
        ("hang_in_child", "FAILURE"),
        ("note_early", "STARTED"),
        ("nobody_has_it", "FAILURE"),
    ],
)
def test_a_schedule_hears_how_its_run_ended(
    task: str, state: str, beat: StartBeat, worker: Callable[..., Process], schedules: Schedules
) -> None:
    worker(TASKAPP_INCLUDE=TIMED, TASKAPP_PARKED_SECONDS="1", TASKAPP_LEASE_SECONDS="1")
    beat()
    args: tuple[Any, ...] = ("x",) if task == "note" else ()

    schedules.add(Schedule("job", f"{TIMED}.{task}", Once(time() + 0.2), args=args))

    eventually(lambda: states(schedules, "job") - {"QUEUED"} == {state})
    assert schedules.get("job").unfinished == ""


def test_failing_tasks_that_name_a_schedule_in_their_headers_do_not_pause_it(
    worker: Callable[..., Process], schedules: Schedules, app: Celery
) -> None:
    worker(TASKAPP_INCLUDE=TIMED, TASKAPP_PARKED_SECONDS="1", TASKAPP_LEASE_SECONDS="1")
    schedules.add(Schedule("job", f"{TIMED}.note", Interval(3_600.0), args=("x",), pause_after_failures=1))
    due_at = schedules.get("job").due_at
    assert due_at is not None
    headers = {"taskapp_schedule": "job", "taskapp_due_at": due_at}
    to_come = tick_id("job", round(due_at * 1_000))

    forged = [
        app.send_task(f"{TIMED}.{task}", headers=headers | more, task_id=identity)
        for task in ("try_again", "hang", "hang_in_child", "nobody_has_it")
        for identity, more in ((None, {}), (f"{task}-late", {"taskapp_due_at": due_at + 0.5}))
    ]
    forged.append(app.send_task(f"{TIMED}.try_again", headers=headers, task_id=to_come))

    eventually(lambda: {result.state for result in forged} == {"FAILURE"})
    assert (schedules.get("job").state, schedules.get("job").failures, schedules.ticks("job")) == ("active", 0, [])


def test_a_run_that_expired_or_was_revoked_has_ended(
    beat: StartBeat, worker: Callable[..., Process], schedules: Schedules, app: Celery
) -> None:
    beat()
    schedules.add(Schedule("late", f"{TIMED}.note", Once(time() + 0.2), args=("x",), options={"expires": 0.5}))
    eventually(lambda: schedules.ticks("late"))
    tick = schedules.ticks("late")[0]
    eventually(lambda: time() > tick.sent_at + 1)

    worker(TASKAPP_INCLUDE=TIMED)

    eventually(lambda: states(schedules, "late") == {"REVOKED"})
    assert app.AsyncResult(tick.id).state == "REVOKED"
