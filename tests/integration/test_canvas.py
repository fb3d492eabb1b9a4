"""Chains, links, errbacks, chords: what follows a task settles with it, on real workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group, states
from celery.exceptions import ChordError

from taskapp.engine.options import Options
from taskapp.errors import CrashedTooOften
from taskapp.redis.keys import Keys
from tests.engine.bench import Bench
from tests.support import Process, RedisServer, eventually

JOBS = """
import os, pathlib
from celery import chord, group
from taskapp.celery import app

@app.task(name="jobs.add")
def add(x, y=1): return x + y

@app.task(name="jobs.total")
def total(numbers): return sum(numbers)

@app.task(name="jobs.tell")
def tell(value, path):
    with open(path, "a") as file: file.write(f"{value}\\n")
    return value

@app.task(name="jobs.fails")
def fails(*_): raise ValueError("no")

@app.task(name="jobs.unencodable")
def unencodable(*_): return object()

@app.task(name="jobs.retries", bind=True, max_retries=5)
def retries(self, value):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return value

@app.task(name="jobs.silent", ignore_result=True)
def silent(value): return value

@app.task(name="jobs.replaces", bind=True)
def replaces(self, value):
    return self.replace(chord([add.s(value), add.s(value)], total.s()))

@app.task(name="jobs.grows", bind=True)
def grows(self, value):
    self.add_to_chord(add.s(value))
    return value

@app.task(name="jobs.dies")
def dies(*_): os._exit(1)

@app.task(name="jobs.dies_once")
def dies_once(value, path):
    if not pathlib.Path(path).exists():
        pathlib.Path(path).touch()
        os._exit(1)
    return value
"""

POOLS = ("coroutines", "prefork", "threads", "solo")
Start = Callable[..., Process]


def job(app: Celery, name: str, *args: Any, **options: Any) -> Any:
    return app.signature(f"jobs.{name}", args, **options)


@pytest.fixture
def start(worker: Start, tmp_path: Path) -> Start:
    """Start a worker that has the jobs above."""
    (tmp_path / "jobs.py").write_text(JOBS)
    return lambda *options, **more: worker(*options, TASKAPP_INCLUDE="jobs", **more)


def options_of(pool: str) -> tuple[str, ...]:
    return () if pool == "coroutines" else ("-P", pool)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def keys_of_chords(server: RedisServer) -> list[str]:
    return list(server.client.scan_iter("taskapp:chord:*"))


@pytest.mark.parametrize("pool", POOLS)
def test_canvas_ends_as_in_celery(app, redis_server: RedisServer, start: Start, tmp_path: Path, pool: str) -> None:
    start(*options_of(pool))
    told = tmp_path / "told"
    add, total = job(app, "add"), job(app, "total")
    linked = job(app, "add", 1).apply_async(link=job(app, "tell", str(told)))
    results = {
        "chain": chain(job(app, "add", 1), add, add).delay(),
        "chain with a group": chain(job(app, "add", 1), group(add, add), total).delay(),
        "chord": chord([job(app, "add", n) for n in range(10)])(total),
        "chord of a chain": chord([chain(job(app, "add", 1), add), job(app, "add", 1)])(total),
        "chord of a chord": chord([chord([job(app, "add", 1)] * 2, total), job(app, "add", 1)])(total),
        "chord of a group": chord([group(job(app, "add", 1), job(app, "add", 2)), job(app, "add", 3)])(total),
        "chord in a chain": chain(job(app, "add", 1), chord([add, add], total), add).delay(),
        "chord with retries": chord([job(app, "retries", n) for n in range(4)])(total),
        "chord of silent tasks": chord([job(app, "silent", n) for n in range(4)])(total),
        "chord of replaced tasks": chord([job(app, "replaces", 1), job(app, "replaces", 2)])(total),
        "chord that grows": chord([job(app, "grows", 1), job(app, "add", 1)])(total),
        "replaced": job(app, "replaces", 1).delay(),
        "chord of a group as body": chord([job(app, "add", 1)] * 2)(group(total, total)),
    }

    seen = {name: result.get(timeout=30) for name, result in results.items()}

    assert seen == {
        "chain": 4, "chain with a group": 6, "chord": 55, "chord of a chain": 5, "chord of a chord": 6,
        "chord of a group": 9, "chord in a chain": 7, "chord with retries": 6, "chord of silent tasks": 6,
        "chord of replaced tasks": 10, "chord that grows": 5, "replaced": 4, "chord of a group as body": [4, 4],
    }  # fmt: skip
    assert linked.get(timeout=10) == 2
    eventually(lambda: lines(told) == ["2"])
    eventually(lambda: keys_of_chords(redis_server) == [])


@pytest.mark.parametrize("pool", POOLS)
def test_errors_run_their_errbacks_once_and_nothing_that_was_to_follow(
    app, redis_server: RedisServer, start: Start, tmp_path: Path, pool: str
) -> None:
    start(*options_of(pool))
    told, never = tmp_path / "told", tmp_path / "never"
    errback = lambda name: job(app, "tell", str(told / name))  # noqa: E731
    told.mkdir()
    follower = job(app, "tell", str(never))
    failing = job(app, "fails").apply_async(link=follower, link_error=errback("task"))
    in_chain = chain(job(app, "fails"), follower).apply_async(link_error=errback("chain"))
    unencodable = job(app, "unencodable").apply_async(link=follower, link_error=errback("unencodable"))
    body = follower.clone().on_error(errback("chord"))
    broken = chord([job(app, "add", 1), job(app, "fails")], app=app)(body)

    for result in (failing, in_chain, unencodable, broken):
        with pytest.raises(Exception, match=r"no|JSON"):
            app.AsyncResult(result.id).get(timeout=20)
    eventually(lambda: sorted(each.name for each in told.iterdir()) == ["chain", "chord", "task", "unencodable"])
    eventually(lambda: redis_server.client.llen(Keys().ready("default")) == 0)
    assert Counter(len(lines(each)) for each in told.iterdir()) == {1: 4}
    assert lines(never) == []
    assert broken.state == states.FAILURE
    with pytest.raises(ChordError):
        app.AsyncResult(broken.id).get(timeout=1)


def test_a_chord_one_of_whose_processes_dies_still_ends_once(app, start: Start, tmp_path: Path) -> None:
    start("-P", "prefork")
    told = tmp_path / "told"
    header = [job(app, "dies_once", n, str(tmp_path / f"died-{n}")) for n in range(3)]

    result = chord(header)(chain(job(app, "total"), job(app, "tell", str(told))))

    assert result.get(timeout=30) == 3
    assert lines(told) == ["3"]


def test_a_chord_with_a_task_that_always_dies_runs_its_errback(app, start: Start, tmp_path: Path) -> None:
    start("-P", "prefork")
    told = tmp_path / "told"
    body = job(app, "total").on_error(job(app, "tell", str(told)))

    result = chord([job(app, "add", 1), job(app, "dies")], app=app)(body)

    with pytest.raises(ChordError):
        app.AsyncResult(result.id).get(timeout=40)
    eventually(lambda: lines(told) == [result.id])


def test_who_was_to_fail_a_buried_task_of_a_chord_may_die_too(
    app, redis_server: RedisServer, start: Start, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    body = job(app, "total").on_error(job(app, "tell", str(told)))
    result = chord([job(app, "add", 1)], app=app)(body)
    bench = Bench(redis_server, Options(crash_limit=1))
    dead = bench.node()
    dead.take(1, ("default",))
    dead.die()
    bench.end_leases(dead.epoch)
    bench.reap()
    [buried] = bench.told

    start(TASKAPP_LEASE_SECONDS="3")

    with pytest.raises(ChordError):
        app.AsyncResult(result.id).get(timeout=20)
    with pytest.raises(CrashedTooOften):
        app.AsyncResult(buried.id).get(timeout=1)
    eventually(lambda: lines(told) == [result.id])
    assert not redis_server.client.exists(bench.keys("unreported"))
    bench.close()
