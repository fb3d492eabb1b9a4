from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery import Celery, chain, chord, group, states
from celery.exceptions import ChordError

from tests.support import Process, RedisServer, eventually

JOBS = """
import os, pathlib, time
from taskapp.celery import app

@app.task(name="jobs.double")
def double(x): return 2 * x

@app.task(name="jobs.total")
def total(numbers): return sum(numbers)

@app.task(name="jobs.fails")
def fails(*_): raise ValueError("no")

@app.task(name="jobs.early", acks_late=False)
def early(): return "early"

@app.task(name="jobs.third_time", bind=True, max_retries=5)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries

@app.task(name="jobs.pauses")
def pauses(path):
    pathlib.Path(path + ".begun").touch()
    while not pathlib.Path(path).exists():
        time.sleep(0.01)
    pathlib.Path(path + ".ended").touch()
    return "done"

@app.task(name="jobs.echo")
def echo(value): return value

@app.task(name="jobs.unencodable")
def unencodable(): return object()

@app.task(name="jobs.dies", reject_on_worker_lost=False)
def dies(): os._exit(1)

@app.task(name="jobs.first_run_waits")
def first_run_waits(folder):
    first = pathlib.Path(folder) / "first"
    try:
        first.touch(exist_ok=False)
    except FileExistsError:
        return "by the second run"
    while not (pathlib.Path(folder) / "go").exists():
        time.sleep(0.01)
    return "by the first run"
"""

Start = Callable[..., Process]


@pytest.fixture
def start(worker: Start, tmp_path: Path) -> Start:
    """Start a worker that has the jobs above."""
    (tmp_path / "jobs.py").write_text(JOBS)
    return lambda *options, **more: worker(*options, TASKAPP_INCLUDE="jobs", **more)


def job(app: Celery, name: str, *args: Any) -> Any:
    return app.signature(f"jobs.{name}", args)


@pytest.mark.quick("prefork")
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_a_worker_stores_results_of_every_kind(app, redis_server: RedisServer, start: Start, tmp_path: Path, pool):
    start("-P", pool)
    paused = job(app, "pauses", str(tmp_path / "go")).delay()
    results = {
        "group": group(job(app, "double", number) for number in range(100)).delay(),
        "chain": chain(job(app, "double", 1), job(app, "double"), job(app, "double")).delay(),
        "chord": chord([job(app, "double", number) for number in range(20)])(job(app, "total")),
        "retry": job(app, "third_time").delay(),
        "early": job(app, "early").delay(),
    }
    failing = job(app, "fails").delay()
    broken = chord([job(app, "double", 1), job(app, "fails")])(job(app, "total"))
    unencodable = job(app, "unencodable").delay()

    assert {name: result.get(timeout=20) for name, result in results.items()} == {
        "group": list(range(0, 200, 2)), "chain": 8, "chord": 380, "retry": 2, "early": "early",
    }  # fmt: skip
    with pytest.raises(ValueError, match="no"):
        failing.get(timeout=20)
    with pytest.raises(ChordError):
        app.AsyncResult(broken.id).get(timeout=20)
    with pytest.raises(Exception, match="not JSON serializable"):
        unencodable.get(timeout=20)
    eventually(lambda: paused.state == states.STARTED)
    (tmp_path / "go").touch()
    assert paused.get(timeout=20) == "done"
    eventually(lambda: redis_server.client.pubsub_channels("celery-task-meta-*") == [])


def test_a_failure_that_the_worker_tells_after_its_process_died_is_stored(app, start: Start):
    start("-P", "prefork")
    result = job(app, "dies").delay()

    with pytest.raises(WorkerLostError):
        result.get(timeout=20)


def test_the_result_of_a_run_that_froze_and_lost_its_claim_is_refused(app, start: Start, tmp_path: Path):
    frozen = start("-P", "prefork", name="w1", TASKAPP_LEASE_SECONDS="1")
    result = job(app, "first_run_waits", str(tmp_path)).delay()
    eventually((tmp_path / "first").exists)
    os.killpg(frozen.pid, signal.SIGSTOP)
    try:
        start("-P", "prefork", name="w2", TASKAPP_LEASE_SECONDS="1")
        assert result.get(timeout=30) == "by the second run"
        (tmp_path / "go").touch()
    finally:
        os.killpg(frozen.pid, signal.SIGCONT)

    eventually(lambda: "its outcome here is discarded" in frozen.output())
    assert app.AsyncResult(result.id).get(timeout=20) == "by the second run"


@pytest.mark.parametrize("pool", ["default", "prefork", "threads"])
def test_what_follows_a_run_is_sent_however_long_the_broker_is_away(
    app, redis_server: RedisServer, start: Start, tmp_path: Path, pool
):
    options = () if pool == "default" else ("-P", pool)
    worker = start(*options, TASKAPP_SUBMIT_DEADLINE_SECONDS="0.5")
    result = chain(job(app, "pauses", str(tmp_path / "go")), job(app, "echo")).delay()
    eventually((tmp_path / "go.begun").exists)
    redis_server.freeze()
    try:
        (tmp_path / "go").touch()
        if pool == "prefork":
            # Its first message: a child has no connection yet. The others' parent has.
            eventually(lambda: "a follow-up" in worker.output())
        else:
            eventually((tmp_path / "go.ended").exists)
    finally:
        redis_server.thaw()
    assert result.get(timeout=20) == "done"
