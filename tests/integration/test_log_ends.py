"""The log of a node: complete however it ends, whichever handlers listen, and whether or not anyone reads it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import psutil
import pytest
from celery import Celery

from taskapp.redis.keys import Keys
from tests.integration import logged
from tests.support import Process, RedisServer, clean_environment, eventually, leased_count, start_worker

LINE = re.compile(r"Task ([\w.]+)\[([\w-]+)\] (received|succeeded)")
BOTH = ["received", "succeeded"]
POOLS = {
    "own": (),
    "prefork": ("-P", "prefork"),
    "threads": ("-P", "threads"),
    "solo": ("-P", "solo"),
    "gevent": ("-P", "gevent"),
}


@pytest.fixture
def node(tmp_path: Path, redis_server: RedisServer) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(*options: str, **env: str) -> Process:
        worker = start_worker(
            tmp_path, redis_server.url, *options, TASKAPP_INCLUDE=logged.__name__, TASKAPP_LEASE_SECONDS="3", **env
        )
        started.append(worker)
        return worker

    yield start
    for each in started:
        each.close()


def submit(app: Celery, count: int) -> list[str]:
    calls = [(number,) for number in range(count)]
    return [
        result.id
        for name in ("logged.def", "logged.async")
        for result in app.tasks[name].submit_many(calls, queue="default")
    ]


@pytest.fixture(autouse=True)
def _types(app: Celery) -> None:
    app.finalize()


def said(text: str) -> dict[str, list[str]]:
    """Return what the lines of each task say, in their order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := LINE.search(line):
            found.setdefault(match[2], []).append(match[3])
    return found


def succeeded(server: RedisServer) -> set[str]:
    """Return the ids of tasks whose success is stored."""
    keys = list(server.client.scan_iter("*celery-task-meta-*", count=10_000))
    found = set()
    for key, value in zip(keys, server.client.mget(keys) if keys else [], strict=True):
        if value and '"SUCCESS"' in (value if isinstance(value, str) else value.decode()):
            found.add((key if isinstance(key, str) else key.decode()).rpartition("meta-")[2])
    return found


@pytest.mark.quick("*-SIGKILL", "own-SIGTERM", "threads-SIGSEGV")
@pytest.mark.parametrize("number", ["SIGKILL", "SIGABRT", "SIGSEGV", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize("pool", ["own", "threads"])
def test_a_task_whose_end_is_known_has_its_lines_whatever_ends_the_node(
    node: Callable[..., Process], app: Celery, redis_server: RedisServer, pool: str, number: str
) -> None:
    # The receiver of each is not the last of its task: what the node dies in is left over.
    worker = node(*POOLS[pool])
    ids = set(submit(app, 3_000))
    # Cheaper to ask than results, which would all be there by the time they were read.
    # In a tight loop: a node runs the others within half a second.
    deadline = monotonic() + 60
    while not 0 < redis_server.client.llen(Keys().ready("default")) < len(ids) - 200:
        assert monotonic() < deadline
    os.kill(worker.pid, signal.Signals[number])
    worker.wait()

    lines, done = said(worker.output()), succeeded(redis_server) & ids
    assert done
    if number not in ("SIGTERM", "SIGINT"):  # a node that drains may end them all
        assert len(done) < len(ids)  # or nothing was cut off
    wrong = {each: lines.get(each) for each in done if lines.get(each) != BOTH}
    assert not wrong


@pytest.mark.quick("own-*", "threads-os._exit", "solo-SIGKILL")
@pytest.mark.parametrize("way", ["os._exit", "os.abort", "SIGKILL", "SIGABRT", "SIGSEGV"])
@pytest.mark.parametrize("pool", ["own", "threads", "solo"])
def test_what_a_task_logged_before_it_ended_its_node_is_written(
    node: Callable[..., Process], app: Celery, pool: str, way: str
) -> None:
    worker = node(*POOLS[pool])
    result = app.tasks["logged.end"].apply_async((way,), queue="default")
    worker.wait(60)
    assert said(worker.output())[result.id] == ["received"]
    assert f"the last words of {way}" in worker.output()


@pytest.mark.parametrize("kind", ["logged.silent", "logged.silent_async"])
def test_the_line_of_a_task_that_ends_its_node_at_once_is_written(
    node: Callable[..., Process], app: Celery, kind: str
) -> None:
    worker = node()
    result = app.tasks[kind].apply_async(queue="default")
    worker.wait(60)
    assert said(worker.output())[result.id] == ["received"]


@pytest.mark.quick("*-own", "text-prefork", "json-gevent")
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_each_task_has_its_two_lines_in_order_and_whole(
    node: Callable[..., Process], app: Celery, redis_server: RedisServer, pool: str, log_format: str
) -> None:
    worker = node(*POOLS[pool], "-f", "node.log", wait=False, TASKAPP_LOG_FORMAT=log_format)  # type: ignore[arg-type]
    ids = set(submit(app, 300))
    log = worker.log.parent / "node.log"
    eventually(lambda: len(succeeded(redis_server)) == len(ids), within_seconds=90)
    worker.terminate()

    lines = log.read_text().splitlines()
    found = said(log.read_text())
    if pool == "prefork":  # one log, two processes: a child may be the quicker one
        assert {each: sorted(told) for each, told in found.items()} == dict.fromkeys(ids, BOTH)
    else:
        assert found == dict.fromkeys(ids, BOTH)
    if log_format == "json":
        for line in lines:
            fields = json.loads(line)
            if match := LINE.search(fields["message"]):
                is_end = match[3] == "succeeded"
                assert (fields["task_id"], fields["data"]["id"]) == (match[2] if is_end else None, match[2])
    else:
        ends = [line for line in lines if LINE.search(line)]
        assert all(re.match(r"[\d-]+ [\d:,]+ INFO    \w+(-\d+)? Task ", line) for line in ends)
        assert all(line.endswith(" attempt=1]") for line in ends if " succeeded " in line)


def test_a_handler_of_the_program_hears_each_record_on_the_thread_it_was_made_on(
    node: Callable[..., Process], app: Celery, redis_server: RedisServer, tmp_path: Path
) -> None:
    worker = node(LOGGED_HEARD=str(tmp_path / "heard"))
    ids = set(submit(app, 30))
    eventually(lambda: len(succeeded(redis_server)) == len(ids), within_seconds=30)
    worker.terminate()

    heard = (tmp_path / "heard").read_text()
    assert said(heard) == dict.fromkeys(ids, BOTH)
    threads = Counter(
        (match[1], match[3], line.partition("|")[0].rstrip("0123456789-"))
        for line in heard.splitlines() if (match := LINE.search(line))
    )  # fmt: skip
    assert set(threads) == {
        ("logged.def", "received", "MainThread"), ("logged.def", "succeeded", "taskapp-task"),
        ("logged.async", "received", "MainThread"), ("logged.async", "succeeded", "MainThread"),
    }  # fmt: skip
    assert said(worker.output()) == said(heard)


def test_a_program_that_sets_up_logging_itself_has_every_line(
    node: Callable[..., Process], app: Celery, redis_server: RedisServer
) -> None:
    worker = node(wait=False, LOGGED_SETUP="1")  # type: ignore[arg-type]
    ids = set(submit(app, 30))
    eventually(lambda: len(succeeded(redis_server)) == len(ids), within_seconds=60)
    worker.terminate()
    lines = [line for line in worker.output().splitlines() if LINE.search(line)]
    assert said("\n".join(lines)) == dict.fromkeys(ids, BOTH)
    assert all(line.startswith("MINE celery.") for line in lines)


def test_what_tasks_say_stands_between_their_lines(
    node: Callable[..., Process], app: Celery, redis_server: RedisServer
) -> None:
    worker = node()
    result = app.tasks["logged.says"].apply_async(("hello",), queue="default")
    eventually(lambda: succeeded(redis_server) == {result.id}, within_seconds=30)
    worker.terminate()
    mine = [line for line in worker.output().splitlines() if result.id in line]
    told = [re.search(r"received|hello printed|hello|succeeded", line)[0] for line in mine]  # type: ignore[index]
    assert told == ["received", "hello", "hello printed", "succeeded"]


@pytest.mark.slow
def test_a_reader_that_stops_does_not_stop_the_node(
    app: Celery, redis_server: RedisServer, tmp_path: Path
) -> None:  # fmt: skip
    environment = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path / "data"), TASKAPP_INCLUDE=logged.__name__,
        PYTHONPATH=str(Path.cwd()),
    )  # fmt: skip
    argv = [sys.executable, "-m", "celery", "-A", "taskapp", "worker", "-n", "w1@%h", "-l", "INFO", "-c", "2"]
    worker = subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert worker.stderr is not None
        while b" ready." not in worker.stderr.readline():
            assert worker.poll() is None
        ids: set[str] = set()
        before = psutil.Process(worker.pid).memory_info().rss
        for _ in range(5):  # some 10 MB of lines: the pipe and what is kept are full before
            ids |= set(submit(app, 4_000))
            eventually(lambda: len(succeeded(redis_server)) == len(ids), within_seconds=90)  # noqa: B023
        assert psutil.Process(worker.pid).memory_info().rss < before + 100 * 1024 * 1024

        worker.terminate()
        _, rest = worker.communicate(timeout=30)
        assert worker.returncode == 0
        text = rest.decode()
        assert re.search(r"[\d,]+ log lines were dropped here", text)
        assert all(told in (["received"], BOTH) for told in said(text).values())
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        worker.communicate()


@pytest.mark.quick("own-*SystemExit", "solo-*KeyboardInterrupt")
@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt", "ValueError"])
@pytest.mark.parametrize("place", ["handlers", "filters of handlers", "filters of loggers", "record factory"])
@pytest.mark.parametrize("pool", ["own", "prefork", "threads", "solo"])
def test_a_handler_or_filter_that_raises_ends_no_node_and_is_named(
    node: Callable[..., Process], app: Celery, redis_server: RedisServer, pool: str, place: str, error: str
) -> None:
    worker = node(*POOLS[pool])
    broken = app.tasks["logged.breaks"].apply_async((place, error), queue="default")
    assert broken.get(timeout=30) == "done"
    ids = submit(app, 20)

    eventually(lambda: set(ids) <= succeeded(redis_server), within_seconds=30)
    eventually(lambda: leased_count(redis_server) == 0)
    assert worker.terminate() == 0
    lines = said(worker.output())
    if place in ("handlers", "record factory"):
        assert {each: sorted(lines[each]) for each in ids} == dict.fromkeys(ids, BOTH)
    reports = re.findall(rf"{error}: , raised by a log handler or filter in Raising\.\w+ \(", worker.output())
    assert len(reports) in (1, 2)  # in a child, too
