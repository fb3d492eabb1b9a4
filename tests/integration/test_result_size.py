"""A result that is too large fails its task, with every pool and backend, and nothing of it is stored or sent on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, states

from taskapp.errors.tasks import ResultTooLarge
from tests.support import Process, RedisServer, eventually

MOST = 4_000
JOBS = """
import pathlib
from celery.exceptions import Ignore
from taskapp.celery import app

KINDS = {
    "text": lambda size: "x" * size, "list": lambda size: list(range(size)),
    "nested": lambda size: {"a": [{"b": "x" * size}]},
    "keys": lambda size: {str(n): None for n in range(size)}, "number": lambda size: 10 ** size,
    "escaped": lambda size: ["\\x00" * (size // 6)],
}

def note(folder, name):
    with open(pathlib.Path(folder) / name, "a") as runs:
        runs.write("run\\n")

@app.task(name="size.returns", autoretry_for=(Exception,), max_retries=3, retry_backoff=0.01)
def returns(folder, kind, size):
    note(folder, kind)
    return KINDS[kind](size)

@app.task(name="size.coroutine", autoretry_for=(Exception,), max_retries=3, retry_backoff=0.01)
async def coroutine(folder, kind, size):
    note(folder, kind)
    return KINDS[kind](size)

@app.task(name="size.child", cpu_bound=True)
def child(folder, kind, size):
    note(folder, kind)
    return KINDS[kind](size)

@app.task(name="size.ignored", ignore_result=True)
def ignored(folder, kind, size):
    return KINDS[kind](size)

@app.task(name="size.early", acks_late=False)
def early(folder, kind, size):
    return KINDS[kind](size)

@app.task(name="size.next")
def next_(value, folder):
    note(folder, "next")
    return len(value)

@app.task(name="size.total")
def total(values, folder):
    note(folder, "total")
    return len(values)

@app.task(name="size.raises")
def raises(size): raise ValueError("y" * size)

@app.task(name="size.raises_from")
def raises_from(size):
    try:
        raise ValueError("y" * size)
    except ValueError as error:
        raise KeyError("short") from error

@app.task(name="size.says", bind=True, autoretry_for=(Exception,), max_retries=3)
def says(self, folder, size):
    note(folder, "says")
    self.update_state(state="PROGRESS", meta={"text": "x" * size})

@app.task(name="size.takes")
def takes(text): return len(text)
"""

Start = Callable[..., Process]


@pytest.fixture
def start(worker: Start, tmp_path: Path) -> Start:
    (tmp_path / "size_jobs.py").write_text(JOBS)

    def start(*options: str, **more: str) -> Process:
        return worker(*options, TASKAPP_INCLUDE="size_jobs", TASKAPP_MAX_RESULT_BYTES=str(MOST), **more)

    return start


def job(app: Celery, name: str, *args: Any) -> Any:
    return app.signature(f"size.{name}", args)


def refused(result: Any) -> str:
    """Return what ``result`` says of its failure."""
    with pytest.raises(ResultTooLarge) as caught:
        result.get(timeout=30)
    assert result.state == states.FAILURE
    return str(caught.value)


def runs(folder: Path, name: str) -> int:
    noted = folder / name
    return noted.read_text().count("run") if noted.exists() else 0


@pytest.mark.quick("default", "prefork")
@pytest.mark.parametrize("pool", ["default", "prefork", "threads", "solo", "gevent"])
def test_a_result_that_is_too_large_fails_its_task_once(
    app: Celery, redis_server: RedisServer, start: Start, tmp_path: Path, pool: str
) -> None:
    start(*(() if pool == "default" else ("-P", pool)))
    names = ["returns", "ignored"] + (["coroutine", "child"] if pool == "default" else [])
    folder = str(tmp_path)

    for name in names[:1] + names[2:]:
        for kind in ("text", "list", "nested", "keys", "number", "escaped"):
            (tmp_path / kind).unlink(missing_ok=True)
            size = MOST * 2 if kind != "number" else MOST + 100
            said = refused(job(app, name, folder, kind, size).delay())
            assert f"more than the {MOST:,} of TASKAPP_MAX_RESULT_BYTES" in said
            assert runs(tmp_path, kind) == 1
        assert job(app, name, folder, "text", MOST - 100).delay().get(timeout=30) == "x" * (MOST - 100)

    assert "the text of ValueError takes 9,999 bytes" in refused(job(app, "raises", 9_999).delay())
    with pytest.raises(KeyError, match="short"):
        job(app, "raises_from", 99_999).delay().get(timeout=30)
    refused(job(app, "says", folder, MOST * 2).delay())
    assert runs(tmp_path, "says") == 1
    # What is stored with a result, such as its arguments, does not count.
    assert job(app, "takes", "z" * 3 * MOST).delay().get(timeout=30) == 3 * MOST
    stored = [redis_server.client.strlen(key) for key in redis_server.client.keys("celery-task-meta-*")]
    assert max(stored) < 100_000


@pytest.mark.parametrize("pool", ["default", "prefork"])
def test_nothing_follows_a_result_that_is_too_large(app: Celery, start: Start, tmp_path: Path, pool: str) -> None:
    start(*(() if pool == "default" else ("-P", pool)))
    folder = str(tmp_path)
    first = {name: job(app, name, folder, "list", MOST * 2) for name in ("returns", "early", "ignored")}

    for name in ("returns", "early"):
        chained = chain(first[name], job(app, "next", folder))()
        refused(chained.parent)
        whole = chord([first[name], job(app, "returns", folder, "text", 1)])(job(app, "total", folder))
        with pytest.raises(Exception, match="TASKAPP_MAX_RESULT_BYTES"):
            whole.get(timeout=30)

    assert chain(job(app, "returns", folder, "text", 5), job(app, "next", folder))().get(timeout=30) == 5
    assert runs(tmp_path, "next") == 1
    assert runs(tmp_path, "total") == 0


def test_an_ignored_result_that_is_too_large_is_not_sent_on(
    app: Celery, redis_server: RedisServer, start: Start, tmp_path: Path
) -> None:
    start()
    chain(job(app, "ignored", str(tmp_path), "list", MOST * 2), job(app, "next", str(tmp_path)))()

    eventually(lambda: redis_server.client.zcard("taskapp:{default}:dead:failed") == 1)

    assert job(app, "next", "alone", str(tmp_path)).delay().get(timeout=20) == 5
    assert runs(tmp_path, "next") == 1
