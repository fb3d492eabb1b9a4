"""Results that somebody else has written: whatever error they name, it ends no more than the call that asks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import COMPRESSED_PAYLOAD_MAGIC
from celery.backends.database import DatabaseBackend

from taskapp.errors import UnreadableFailure
from taskapp.errors.tasks import UnreadableResult
from taskapp.execution.coroutines import Stopped
from taskapp.monitor.task_state import State, task_state
from tests.support import RedisServer, clean_environment, run_python

ENDING = {
    "SystemExit": "builtins", "KeyboardInterrupt": "builtins", "GeneratorExit": "builtins",
    "BaseException": "builtins", "CancelledError": "asyncio.exceptions",
    Stopped.__name__: Stopped.__module__,
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


def run(server: RedisServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", *arguments, env=clean_environment(TASKAPP_BROKER_URL=server.url))


def success(rest: bytes) -> bytes:
    return b'{"status": "SUCCESS", "task_id": "x", ' + rest + b"}"


NO_RESULTS = {
    "broken": (b"{", "it is not JSON"), "packed by another": (b"\x1f\x8b\x08\x00aaa", "it is not valid UTF-8"),
    "no text": (success(b'"result": "\xff"'), "it is not valid UTF-8"),
    "packed and damaged": (COMPRESSED_PAYLOAD_MAGIC + b"application/x-gzip\0abc", "it cannot be unpacked"),
    "packed by nobody": (COMPRESSED_PAYLOAD_MAGIC + b"no-such\0abc", "is not installed here"),
    "nothing": (b"null", "it is not an object"),
    "a list": (b"[]", "it is not an object"), "a number": (b"5", "it is not an object"),
    "a status that is none": (b'{"status": 5, "result": 1}', "it is not an object"),
    "no result": (b'{"status": "SUCCESS"}', "it is not an object"),
    "a value of no type": (success(b'"result": {"__type__": "nosuch", "__value__": 1}'), "cannot be created"),
    "a value of the wrong type": (
        success(b'"result": {"__type__": "uuid", "__value__": {"hex": "z"}}'), "cannot be created"
    ),
    "too deep": (success(b'"result": ' + b"[" * 50_000 + b"]" * 50_000), "nested too deeply"),
    "a number too long": (success(b'"result": ' + b"9" * 5_000), "cannot be created"),
    **{f"children {children!r}": (success(b'"result": 1, "children": ' + children), "its children")
       for children in (b"5", b"[5]", b"[[1]]", b'[[["a", 5], null]]', b"[[null, null]]", b'[["a", [[{}, null]]]]')},
    "a list of Redis": (None, "not a Redis string"),
}  # fmt: skip


@pytest.mark.parametrize(("stored", "why"), NO_RESULTS.values(), ids=NO_RESULTS)
def test_what_is_stored_and_is_no_result_is_said_in_words(
    app: Celery, redis_server: RedisServer, stored: bytes | None, why: str
) -> None:
    key = "celery-task-meta-odd"
    if stored is None:
        redis_server.client.lpush(key, "x")
    else:
        redis_server.client.set(key, stored)

    seen = task_state("odd", app)

    assert (seen.state, seen.celery_state) == (State.UNKNOWN, "PENDING")
    assert why in seen.unreadable
    said = f"stored result under '{key}' cannot be read: .*{why}"
    with pytest.raises(UnreadableResult, match=said):
        assert app.AsyncResult("odd").state
    if stored is not None:  # Redis reads several at once, and nothing of those that are no texts
        with pytest.raises(UnreadableResult, match=said):
            app.AsyncResult("odd").get(timeout=20)
        with pytest.raises(UnreadableResult, match=said):
            asyncio.run(app.AsyncResult("odd").aget(timeout=20))  # type: ignore[attr-defined]


def test_a_child_at_the_end_of_a_long_chain_and_groups_are_read(app: Celery, redis_server: RedisServer) -> None:
    last: Any = None
    for step in range(400):
        last = [[str(step), last], None]
    inner = [["group", None], [[["a", None], None], ["b", None]]]
    meta = {"status": "SUCCESS", "result": 1, "children": [last, inner], "task_id": "x"}
    redis_server.client.set("celery-task-meta-x", json.dumps(meta))

    result: Any = app.AsyncResult("x")
    assert result.get(timeout=20) == 1
    assert [child.id for child in result.children] == ["399", "group"]
    assert task_state("x", app).state is State.SUCCEEDED


def test_a_task_whose_result_cannot_be_read_is_shown_all_the_same(app: Celery, redis_server: RedisServer) -> None:
    redis_server.client.set("celery-task-meta-odd", "{")
    alone = run(redis_server, "taskapp", "task", "show", "odd")
    printed = run(redis_server, "celery", "-A", "taskapp", "result", "odd")
    app.send_task("shop.greet", ("you",), queue="low", task_id="odd")
    waits = run(redis_server, "taskapp", "task", "show", "odd")

    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout.startswith("state      unknown\nresult     unreadable: it is not JSON")
    assert waits.returncode == 0
    assert "state      queued" in waits.stdout
    assert "result     unreadable: it is not JSON" in waits.stdout
    assert printed.returncode == 1
    assert "cannot read the result of the task 'odd': it is not JSON" in printed.stderr
    assert "Traceback" not in printed.stderr


@pytest.mark.parametrize(
    "field", ["run", "retries", "worker", "queue", "name", "args", "date_done", "started_at", "sent_at"]
)
@pytest.mark.parametrize("value", ["x", -1, [], {}, 1e300])
def test_a_result_with_an_odd_field_is_shown(app: Celery, redis_server: RedisServer, field: str, value: Any) -> None:
    meta = {"status": "FAILURE", "result": {"exc_type": "KeyError", "exc_message": ["x"]}, field: value}
    redis_server.client.set("celery-task-meta-odd", json.dumps(meta))

    seen = task_state("odd", app)

    assert (seen.state, seen.unreadable) == (State.FAILED, "")
    assert seen.error.startswith("KeyError")
