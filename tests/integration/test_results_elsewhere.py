"""Results on a Redis of their own, which goes away while tasks end: nobody waits for it, and nothing is lost."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskapp.redis.keys import Keys
from tests.support import Process, RedisServer, clean_environment, eventually, leased_count, run_python

JOBS = """
import os, pathlib, time
from taskapp.celery import app
from taskapp.results import deferred_store

deferred_store.MOST_RUNS = int(os.environ.get("MOST_RUNS", deferred_store.MOST_RUNS))

def write(path, line):
    with open(path, "a") as file: file.write(f"{line}\\n")

@app.task(name="jobs.note")
def note(value, path):
    write(path, value)
    return value

@app.task(name="jobs.note_async")
async def note_async(value, path):
    write(path, value)
    return value

@app.task(name="jobs.note_in_child", cpu_bound=True)
def note_in_child(value, path):
    write(path, value)
    return value

@app.task(name="jobs.large")
async def large(path):
    write(path, "large")
    return "x" * 3_000_000

@app.task(name="jobs.held")
def held(value, path):
    while not pathlib.Path(path).exists():
        time.sleep(0.01)
    return value

@app.task(name="jobs.fails")
def fails(path):
    write(path, "failing")
    raise ValueError("no")

@app.task(name="jobs.retries", bind=True, max_retries=5)
def retries(self, path):
    write(path, self.request.retries)
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return "retried"

@app.task(name="jobs.total")
def total(numbers): return sum(numbers)

@app.task(name="jobs.dies")
def dies(path):
    write(path, "dying")
    os._exit(1)
"""

SUBMIT = """
import sys
from celery import chain, chord, group, signature
from taskapp.celery import app
def job(name, *args): return signature(f"jobs.{name}", args, app=app)
for task_id in eval(sys.argv[1]): print(task_id)
"""

POOLS = ("coroutines", "prefork", "threads", "solo")
Start = Callable[..., Process]
Submit = Callable[..., list[str]]


@pytest.fixture
def results(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    """A second server, for results alone."""
    home = tmp_path / "results"
    home.mkdir()
    server = RedisServer(redis_server.binary, home)
    yield server
    server.close()


@pytest.fixture
def start(worker: Start, results: RedisServer, tmp_path: Path) -> Start:
    """Start a worker with the jobs above; its results lie elsewhere."""
    (tmp_path / "jobs.py").write_text(JOBS)
    return lambda *options, **more: worker(*options, TASKAPP_INCLUDE="jobs", TASKAPP_RESULT_URL=results.url, **more)


@pytest.fixture
def submit(redis_server: RedisServer, results: RedisServer, tmp_path: Path) -> Submit:
    """Submit in a process of its own what an expression says, which returns ids."""

    def run(expression: str) -> list[str]:
        urls = {"TASKAPP_BROKER_URL": redis_server.url, "TASKAPP_RESULT_URL": results.url}
        environment = clean_environment(**urls, TASKAPP_DATA_DIR=str(tmp_path / "data"), PYTHONPATH=":".join(sys.path))
        return run_python("-c", SUBMIT, expression, env=environment, check=True).stdout.split()

    return run


def options_of(pool: str) -> tuple[str, ...]:
    return () if pool == "coroutines" else ("-P", pool)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def meta(results: RedisServer, task_id: str) -> dict[str, Any]:
    """Return what is stored of a task."""
    value = results.client.get(f"celery-task-meta-{task_id}")
    return json.loads(value) if value else {"status": "PENDING", "result": None}


def outcome(results: RedisServer, task_id: str) -> tuple[str, Any]:
    stored = meta(results, task_id)
    return stored["status"], stored["result"]


@pytest.mark.quick("killed-coroutines", "frozen-prefork")
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("away", ["killed", "frozen"])
def test_more_tasks_than_slots_run_while_the_server_is_away(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path, pool: str, away: str
):
    start(*options_of(pool))
    path = str(tmp_path / "log")
    submit(f"[job('note', 'first', {path!r}).delay()]")
    eventually(lambda: leased_count(redis_server) == 0 and lines(tmp_path / "log"), within_seconds=10)
    results.kill() if away == "killed" else results.freeze()

    names = ["note", "note_async", "note_in_child"] * 7
    ids = submit(f"[job(name, n, {path!r}).delay() for n, name in enumerate({names!r})]")
    fails, retries = submit(f"[job('fails', {path!r}).delay(), job('retries', {path!r}).delay()]")
    eventually(lambda: len(lines(tmp_path / "log")) >= 1 + 21 + 2, within_seconds=15)
    assert leased_count(redis_server) >= 23  # the claims are held until the results are stored
    results.heal()

    eventually(lambda: leased_count(redis_server) == 0, within_seconds=15)
    assert [outcome(results, task_id) for task_id in ids] == [("SUCCESS", n) for n in range(21)]
    assert outcome(results, fails)[0] == "FAILURE"
    eventually(lambda: outcome(results, retries) == ("SUCCESS", "retried"), within_seconds=10)
    assert sorted(lines(tmp_path / "log")) == sorted(["first", *map(str, range(21)), "failing", "0", "1"])


@pytest.mark.quick("coroutines")
@pytest.mark.parametrize("pool", ["coroutines", "prefork"])
def test_a_worker_with_too_much_to_store_claims_no_more_until_it_is_stored(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path, pool: str
):
    start(*options_of(pool), MOST_RUNS="3")
    path = str(tmp_path / "log")
    results.kill()
    submit(f"[job('note', 'first', {path!r}).delay() for n in range(3)]")
    eventually(lambda: len(lines(tmp_path / "log")) == 3, within_seconds=10)

    ids = submit(f"[job('note', n, {path!r}).delay() for n in range(20)]")
    looked_at = time.monotonic() + 2.5
    eventually(lambda: time.monotonic() > looked_at or len(lines(tmp_path / "log")) > 3)
    assert (redis_server.client.llen(Keys().ready("default")), leased_count(redis_server)) == (20, 3)
    results.start()

    eventually(lambda: [outcome(results, one) for one in ids] == [("SUCCESS", n) for n in range(20)], within_seconds=15)


def test_what_follows_a_task_is_sent_after_its_result_is_stored(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path
):
    start()
    path = str(tmp_path / "log")
    submit(f"[job('note', 'warm', {path!r}).delay()]")
    eventually(lambda: leased_count(redis_server) == 0 and lines(tmp_path / "log"), within_seconds=10)
    results.kill()

    (last,) = submit(f"[chain(job('note', 1, {path!r}), job('note', {path!r})).delay()]")
    eventually(lambda: lines(tmp_path / "log") == ["warm", "1"], within_seconds=10)
    (other,) = submit(f"[job('note', 'other', {path!r}).delay()]")
    eventually(lambda: lines(tmp_path / "log") == ["warm", "1", "other"], within_seconds=10)
    results.start()

    eventually(lambda: outcome(results, last) == ("SUCCESS", 1), within_seconds=10)
    assert lines(tmp_path / "log") == ["warm", "1", "other", "1"]
    eventually(lambda: outcome(results, other) == ("SUCCESS", "other"), within_seconds=10)


@pytest.mark.quick("coroutines")
@pytest.mark.parametrize("pool", ["coroutines", "prefork"])
def test_a_chord_whose_parts_end_while_the_server_is_away_ends_once(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path, pool: str
):
    start(*options_of(pool))
    go, path = str(tmp_path / "go"), str(tmp_path / "log")
    body = f"chain(job('total'), job('note', {path!r}))"
    (last,) = submit(f"[chord([job('held', n, {go!r}) for n in range(5)], {body}).delay()]")
    # A chord that is begun by the end of a task.
    (next_last,) = submit(
        f"[chain(job('held', 7, {go!r}), group(job('note', {path!r}), job('note', {path!r})), job('total')).delay()]"
    )
    eventually(lambda: leased_count(redis_server) >= 2, within_seconds=10)
    results.kill()
    (tmp_path / "go").touch()
    (other,) = submit(f"[job('note', 'other', {path!r}).delay()]")
    eventually(lambda: "other" in lines(tmp_path / "log"), within_seconds=10)
    results.start()

    eventually(lambda: outcome(results, last) == ("SUCCESS", 10), within_seconds=20)
    eventually(lambda: outcome(results, next_last) == ("SUCCESS", 14), within_seconds=20)
    eventually(lambda: leased_count(redis_server) == 0, within_seconds=10)
    assert sorted(lines(tmp_path / "log")) == ["10", "7", "7", "other"]
    assert outcome(results, other) == ("SUCCESS", "other")


def test_a_large_result_of_a_coroutine_holds_up_no_other(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path
):
    start()
    path = str(tmp_path / "log")
    results.kill()
    large, small = submit(f"[job('large', {path!r}).delay(), job('note_async', 1, {path!r}).delay()]")
    eventually(lambda: sorted(lines(tmp_path / "log")) == ["1", "large"], within_seconds=10)
    results.start()

    eventually(lambda: outcome(results, small) == ("SUCCESS", 1), within_seconds=10)
    assert outcome(results, large) == ("SUCCESS", "x" * 3_000_000)


@pytest.mark.parametrize("pool", ["coroutines", "prefork"])
def test_a_worker_that_ends_meanwhile_gives_back_what_could_not_be_stored(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path, pool: str
):
    first = start(*options_of(pool), TASKAPP_DRAIN_SECONDS="1")
    path = str(tmp_path / "log")
    results.freeze()
    ids = submit(f"[job('note', n, {path!r}).delay() for n in range(5)]")
    eventually(lambda: len(lines(tmp_path / "log")) == 5, within_seconds=10)

    assert first.terminate(within_seconds=10) == 0

    assert leased_count(redis_server) == 0
    assert redis_server.client.llen(Keys().ready("default")) == 5
    results.thaw()
    start(*options_of(pool), name="w2")
    eventually(lambda: [outcome(results, one) for one in ids] == [("SUCCESS", n) for n in range(5)], within_seconds=15)


def test_a_worker_that_ends_waits_for_a_server_that_is_back_in_time(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path
):
    first = start(TASKAPP_DRAIN_SECONDS="10")
    path = str(tmp_path / "log")
    results.kill()
    (task,) = submit(f"[job('note', 'only', {path!r}).delay()]")
    eventually(lambda: lines(tmp_path / "log") == ["only"], within_seconds=10)

    first._popen.terminate()
    results.start()

    assert first.wait() == 0
    assert outcome(results, task) == ("SUCCESS", "only")
    assert (leased_count(redis_server), redis_server.client.llen(Keys().ready("default"))) == (0, 0)


def test_a_child_that_dies_while_the_server_is_away_holds_up_nobody(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path
):
    start("-P", "prefork")
    path = str(tmp_path / "log")
    results.freeze()
    (dead,) = submit(f"[job('dies', {path!r}).delay()]")
    eventually(lambda: lines(tmp_path / "log").count("dying") == 3, within_seconds=20)
    (good,) = submit(f"[job('note', 'good', {path!r}).delay()]")
    eventually(lambda: "good" in lines(tmp_path / "log"))
    results.thaw()

    eventually(lambda: outcome(results, good) == ("SUCCESS", "good"), within_seconds=10)
    eventually(lambda: outcome(results, dead)[0] == "FAILURE", within_seconds=15)


def test_a_result_the_server_refuses_for_good_leaves_a_dead_letter(
    redis_server: RedisServer, results: RedisServer, start: Start, submit: Submit, tmp_path: Path
):
    worker = start()
    path = str(tmp_path / "log")
    go = str(tmp_path / "go")
    (held,) = submit(f"[chain(job('held', 1, {go!r}), job('note', {path!r})).delay().parent]")
    # What is stored when it begins is not to take the place again.
    eventually(lambda: outcome(results, held)[0] == "STARTED")
    results.client.pipeline().delete(f"celery-task-meta-{held}").lpush(
        f"celery-task-meta-{held}", "in its place"
    ).execute()
    (tmp_path / "go").touch()

    eventually(lambda: leased_count(redis_server) == 0, within_seconds=10)
    (good,) = submit(f"[job('note', 'good', {path!r}).delay()]")
    eventually(lambda: outcome(results, good) == ("SUCCESS", "good"), within_seconds=10)
    assert lines(tmp_path / "log") == ["good"]
    assert "cannot be stored" in worker.output()
    letters = list(redis_server.client.scan_iter("taskapp:{default}:dead:*"))
    assert "taskapp:{default}:dead:failed" in letters
