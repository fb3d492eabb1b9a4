"""The outbox in tests of users, which need no server of tasks: a commit submits before it returns."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from taskapp import Celery
from taskapp.outbox.sqlalchemy import metadata, with_session
from taskapp.testing import in_process

app = Celery("shop", set_as_current=False)


@app.task
def pay(number: int) -> int:
    return number


@pytest.fixture(params=["in memory", "file"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "file":
        engine = create_engine(f"sqlite:///{tmp_path}/shop.sqlite")
    else:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    metadata.create_all(engine)
    return engine


@pytest.mark.parametrize("number", [1, 2])
def test_a_commit_submits_and_a_rollback_does_not(engine: Engine, number: int) -> None:
    with in_process(app) as tasks, Session(engine) as session:
        with_session(session).delay(pay, -number)
        session.rollback()
        result = with_session(session).delay(pay, number)
        assert list(tasks.submitted) == []
        session.commit()

        assert [one.id for one in tasks.submitted] == [result.id]
        tasks.run_due()
        assert result.get(timeout=1) == number
