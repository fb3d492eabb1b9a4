"""Libraries that wrap what Celery traces, from a module of tasks, see the errors of every kind of task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from taskapp.app.application import Celery
from tests.support import Process, eventually

JOBS = """
import functools, pathlib
from celery import shared_task
from celery.app import trace

SEEN = pathlib.Path(__file__).with_name("seen")
build_tracer = trace.build_tracer

def watched(run):
    @functools.wraps(run)
    def call(*args, **kwargs):
        try:
            return run(*args, **kwargs)
        except Exception as error:
            with SEEN.open("a") as seen:
                seen.write(f"{error}\\n")
            raise
    return call

def build_and_watch(name, task, *args, **kwargs):
    if not getattr(task, "_is_watched_by_this", False):
        if trace.task_has_custom(task, "__call__"):
            type(task).__call__ = watched(type(task).__call__)
        else:
            task.run = watched(task.run)
        task._is_watched_by_this = True
    return build_tracer(name, task, *args, **kwargs)

trace.build_tracer = build_and_watch

@shared_task(name="jobs.function")
def function(): raise ValueError("of a function")

@shared_task(name="jobs.coroutine")
async def coroutine(): raise ValueError("of a coroutine")

@shared_task(name="jobs.child", cpu_bound=True)
def child(): raise ValueError("of a child")
"""
KINDS = ("function", "coroutine", "child")


@pytest.mark.parametrize("pool", ["default", "prefork", "threads"])
def test_a_library_that_replaces_the_tracer_from_a_module_of_tasks_sees_every_error_once(
    app: Celery, worker: Callable[..., Process], tmp_path: Path, pool: str
) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    worker(*([] if pool == "default" else ["-P", pool]), TASKAPP_INCLUDE="jobs")

    for kind in KINDS:
        with pytest.raises(ValueError, match=f"of a {kind}"):
            app.send_task(f"jobs.{kind}").get(timeout=30)

    seen = tmp_path / "seen"
    eventually(lambda: len(seen.read_text().splitlines()) >= len(KINDS))
    assert sorted(seen.read_text().splitlines()) == sorted(f"of a {kind}" for kind in KINDS)
