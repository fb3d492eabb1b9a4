"""``taskapp outbox`` as people and scripts use it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import text
from sqlalchemy.orm import Session

from taskapp.outbox.sql_store import SqlStore
from taskapp.outbox.sqlalchemy import with_session
from taskapp.tasks import add
from tests.support import Node, RedisServer, clean_environment, eventually, run_python

pytestmark = [
    pytest.mark.usefixtures("app", "no_prompt_relay"),
    pytest.mark.parametrize("url", ["sqlite"], indirect=True),
]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(tmp_path: Path, redis_server: RedisServer) -> dict[str, str]:
    return clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path), PYTHONPATH=str(Path.cwd())
    )


@pytest.fixture
def run(url: str, env: dict[str, str], tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_python("-m", "taskapp", "outbox", *arguments, "--url", url, env=env, cwd=tmp_path)

    return run


@pytest.fixture
def sent(session: Session, app: Celery) -> list[str]:
    sent = [with_session(session).delay(add, number, number).id for number in range(3)]
    session.commit()
    return sent


def refuse(store: SqlStore, *ids: str) -> None:
    with store.engine.begin() as connection:
        for each in ids:
            change = "UPDATE taskapp_outbox SET refused = 1, attempts = 1, error = 'no\x1b[31m' WHERE id = :id"
            connection.execute(text(change), {"id": each})


def test_what_waits_is_listed_and_counted(run: Run, sent: list[str], store: SqlStore) -> None:
    refuse(store, sent[1])

    listed = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert [(row["id"], row["is_refused"]) for row in listed] == [(sent[0], False), (sent[1], True), (sent[2], False)]
    assert [json.loads(line)["id"] for line in run("list", "--json", "--refused").stdout.splitlines()] == [sent[1]]
    table = run("list").stdout
    assert all(each in table for each in sent)
    assert "\x1b" not in table
    status = run("status", "--json")
    assert json.loads(status.stdout)["waiting"] == 2
    assert (status.returncode, json.loads(status.stdout)["refused"]) == (1, 1)


def test_refused_tasks_wait_again_or_are_deleted(run: Run, sent: list[str], store: SqlStore) -> None:
    refuse(store, *sent)

    assert run("retry", sent[0]).stdout == f"{sent[0]} waits again\n"
    assert run("retry", sent[0]).stderr == (
        f"Error: no refused task {sent[0]!r} in the outbox; see: taskapp outbox list\n"
    )
    assert run("remove", sent[1], "--yes").returncode == 0
    assert run("remove", sent[0], "--yes").returncode == 1
    assert run("retry").returncode == 2
    assert run("retry", "--all").stdout == "1 tasks wait again\n"
    assert store.backlog()[::2] == (2, 0)
    assert run("status").returncode == 0


def test_once_queues_what_waits(run: Run, sent: list[str], queued: Callable[..., Sequence[str]]) -> None:
    assert run("run", "--once").stdout == "queued 3 tasks\n"
    assert queued() == sent
    assert run("list").stdout == "no task in the outbox\n"


def test_a_relay_runs_until_it_is_stopped(
    url: str, env: dict[str, str], session: Session, queued: Callable[..., Sequence[str]], tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "taskapp", "outbox", "run", "--url", url]
    relay = Node(argv, tmp_path / "relay.log", env, cwd=tmp_path)
    try:
        result = with_session(session).delay(add, 1, 1)
        session.commit()
        assert eventually(queued) == [result.id]
    finally:
        assert relay.terminate() == 0
    assert relay.output().startswith("queueing tasks from the outbox at sqlite:///")


def test_what_cannot_be_used_is_named(run: Run, env: dict[str, str], store: SqlStore, tmp_path: Path) -> None:
    assert run("create").stdout == f"the outbox at {store.name} is ready\n"
    without = run_python("-m", "taskapp", "outbox", "list", env=env, cwd=tmp_path)
    assert without.stderr == (
        "Error: no outbox is named; add --url postgresql://user:password@host/name, or set TASKAPP_OUTBOX_URL, or "
        "DJANGO_SETTINGS_MODULE for the databases of a Django project\n"
    )
    unknown = run_python("-m", "taskapp", "outbox", "list", "--url", "oracle://u:secret@h/x", env=env, cwd=tmp_path)
    assert unknown.stderr.startswith("Error: there cannot be an outbox at 'oracle://u:***@h/x': 'oracle' is not")
