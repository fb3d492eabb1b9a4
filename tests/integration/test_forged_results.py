"""Results that somebody else has written: whatever error they name, it ends no more than the call that asks."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.backends.database import DatabaseBackend

from taskapp.errors import UnreadableFailure
from tests.support import RedisServer

ENDING = {
    "SystemExit": "builtins", "KeyboardInterrupt": "builtins", "GeneratorExit": "builtins",
    "BaseException": "builtins", "CancelledError": "asyncio.exceptions",
    "Stopped": "taskapp.worker.coroutines",
}  # fmt: skip
FAILURES: dict[str, Any] = {
    **{name: {"exc_type": name, "exc_module": module, "exc_message": ["0"]} for name, module in ENDING.items()},
    "a function": {"exc_type": "system", "exc_module": "os", "exc_message": ["echo forged"]},
    "a class of another kind": {"exc_type": "Path", "exc_module": "pathlib", "exc_message": ["x"]},
    "no type": {"exc_message": ["x"]}, "a type that is a list": {"exc_type": ["x"], "exc_module": "builtins"},
    "a module that is a list": {"exc_type": "x", "exc_module": ["builtins"]},
    "a text": "SystemExit", "a number": 5, "a list": [1, 2],
}  # fmt: skip


@pytest.fixture(params=FAILURES.values(), ids=FAILURES)
def forged(request: pytest.FixtureRequest, redis_server: RedisServer) -> str:
    """The id of a task whose failure was forged."""
    task_id = str(uuid.uuid4())
    meta = {"status": "FAILURE", "result": request.param, "traceback": None, "children": [], "task_id": task_id}
    redis_server.client.set(f"celery-task-meta-{task_id}", json.dumps(meta))
    return task_id


def test_who_waits_for_a_forged_failure_gets_an_error_that_can_be_caught(app: Celery, forged: str) -> None:
    result: Any = app.AsyncResult(forged)
    with pytest.raises(UnreadableFailure):
        result.get(timeout=20)
    with pytest.raises(UnreadableFailure):
        asyncio.run(app.AsyncResult(forged).aget(timeout=20))  # type: ignore[attr-defined]
    with pytest.raises(UnreadableFailure):
        app.ResultSet([app.AsyncResult(forged)]).get(timeout=20)
    assert app.AsyncResult(forged).state == "FAILURE"
    assert isinstance(app.AsyncResult(forged).result, UnreadableFailure)
    assert isinstance(app.backend.get_result(forged), UnreadableFailure)


@pytest.mark.parametrize("name", ENDING)
def test_the_same_holds_for_a_store_of_another_kind(app: Celery, tmp_path: Path, name: str) -> None:
    backend = DatabaseBackend(url=f"sqlite:///{tmp_path}/results.sqlite", app=app)
    backend._store_result("forged", {"exc_type": name, "exc_module": ENDING[name], "exc_message": ["0"]}, "FAILURE")

    with pytest.raises(UnreadableFailure):
        app.AsyncResult("forged", backend=backend).get(timeout=20)


def test_an_error_of_a_task_is_what_it_was(app: Celery, redis_server: RedisServer) -> None:
    meta = {"status": "FAILURE", "result": {"exc_type": "KeyError", "exc_module": "builtins", "exc_message": ["x"]}}
    redis_server.client.set("celery-task-meta-1", json.dumps({**meta, "task_id": "1", "children": []}))
    with pytest.raises(KeyError, match="x"):
        app.AsyncResult("1").get(timeout=20)
